"""Resamplers: rows a client adds to its own or leaves out before it trains. What they make never leaves the client.

One file each; registered as kind `resampler`.
"""
