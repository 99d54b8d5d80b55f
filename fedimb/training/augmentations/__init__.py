"""Augmentations: changes to the inputs of training batches, never to what is evaluated or queried.

One file each; registered as kind `augmentation`."""
