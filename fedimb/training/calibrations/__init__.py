"""Post-hoc calibration: a finished model's logits, adjusted after training without touching the model.

One file each; registered as kind `calibration`."""
