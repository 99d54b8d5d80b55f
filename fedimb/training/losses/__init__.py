"""Losses: modules called as `loss(logits, labels)`; they may have parameters and use the prior.

One file each; registered as kind `loss`."""
