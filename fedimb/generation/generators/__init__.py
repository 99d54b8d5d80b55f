"""Class- and domain-conditional generators, one file each. Kind `generator`; what they share is in the folder above."""
