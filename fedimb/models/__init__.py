"""Small models. Every model has `features(x)` and a linear `head`.

One file each; registered as kind `model`."""
