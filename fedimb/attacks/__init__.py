"""Attacks on a run by some of its simulated clients: what they train on, send and say instead of what they should.

Registered as kind `attack`. A deployed plan that names one is refused."""
