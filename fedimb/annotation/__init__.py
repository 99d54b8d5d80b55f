"""Where labels come from while a run goes on: revealed in simulation, or given by people who work through a list.

``base`` is the interface, ``oracles`` opens one by name, ``hidden`` keeps a simulation's labels from everything else.
"""
