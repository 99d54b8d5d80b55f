"""The server's end of a run: the one loop and its steps, the aggregator adapter, checkpoints, launch and resume."""
