"""Frozen encoders: inputs -> embeddings, one file each, and the class vectors some of them bring. Kind `encoder`."""
