"""Local training is data: TrainSpec in, one loop, records out.

Losses, samplers, local objectives and post-hoc calibration live in sub-folders."""
