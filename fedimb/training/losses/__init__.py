"""Losses: modules called as `loss(logits, labels)`; may own parameters and see the prior.

One file each; registered as kind `loss`."""
