"""The server side of a run: the loop and its steps, the aggregator adapter, checkpoints, launch and resume."""
