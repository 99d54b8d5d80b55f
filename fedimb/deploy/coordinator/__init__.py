"""The coordinator of a deployment: its folder and certificates, servers, sites, study plans and runs."""
