"""Augmentations: what training changes about a batch's inputs, never about what is evaluated or queried.

One file each; registered as kind `augmentation`."""
