"""Types of plain data: what JSON and YAML files hold."""

from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
"""A parsed JSON object. What an entry holds is known to the code that takes it out and checks it, not to its type."""

Settings: TypeAlias = dict[str, Any]
"""A part of the configuration by name, as YAML and the command line give it: plain values, lists and further parts."""
