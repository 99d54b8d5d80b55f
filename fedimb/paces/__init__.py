"""Paces: which clients a simulated round waits for, or that there are no rounds; on a clock of whole nanoseconds.

`base` says what a pace decides, `latency` how long a client takes, `schedule` when each training begins and arrives.
"""
