"""Post-hoc calibration: adjusts the logits of a trained model without changing the model.

One file each; registered as kind `calibration`."""
