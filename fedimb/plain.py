"""Types of plain data: what JSON and YAML files hold."""

from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
"""A parsed JSON object. The type of an entry is known only to the code that reads and checks it."""

Settings: TypeAlias = dict[str, Any]
"""Part of a configuration by name, as in YAML or on the command line: plain values, lists and nested parts."""
