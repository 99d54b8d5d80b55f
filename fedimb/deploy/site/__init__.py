"""A hospital site: its node, who is asked before anything leaves, what may leave, and what is kept of it."""
