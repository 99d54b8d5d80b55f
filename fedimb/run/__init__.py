"""The one run loop: steps, aggregator adapter, run folder, checkpoint, client state.

Everything that executes a run and nothing that knows a method."""
