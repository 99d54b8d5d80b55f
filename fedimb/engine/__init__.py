"""Where clients run: in this process (inline) or on Ray. Knows nothing about strategies.

Private Flower names are used in `flower_private` only."""
