"""From command-line arguments to one validated configuration, and to the JSON that server and clients read.

``compose`` (Hydra) -> ``validate`` -> `RunConfig` -> ``load.to_json``; a node only needs ``load.from_json``.
"""
