"""Local training as data: a TrainSpec goes into one loop, and records come out.

Losses, samplers, local objectives and post-hoc calibration live in sub-folders."""
