"""The exit door: what may leave a site, checked against what its contract declares."""
