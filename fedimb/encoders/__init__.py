"""Frozen encoders: inputs -> embeddings and, for some, class vectors. One file each; kind `encoder`."""
