"""Texts that fedimb writes out: nginx.conf, systemd units, a node's settings, the steps for real machines."""
