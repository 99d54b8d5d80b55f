"""A hospital site: its node, its approvals, what may leave the site, and the log of what left."""
