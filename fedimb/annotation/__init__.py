"""Where labels come from during a run: revealed in a simulation, or given by people who work through a worklist.

``base`` is the interface, ``oracles`` opens an oracle by name, ``hidden`` hides a simulation's labels from other code.
"""
