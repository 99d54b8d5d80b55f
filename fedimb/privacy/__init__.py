"""What may leave a site: the egress filter, differential privacy, secure sums, and the audit of synthetic samples."""
