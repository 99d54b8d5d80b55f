"""Where clients run: in this process (inline) or on Ray. Knows nothing of strategies.

Private Flower names live in `flower_private` and nowhere else."""
