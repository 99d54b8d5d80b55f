"""Turns a mapping from YAML into one of this package's settings classes; errors name the key."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from fedimb.errors import ConfigError, nearest
from fedimb.registry.arguments import field_types, typed

Settings = TypeVar("Settings")


def settings_from(name: str, kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """``kind(**given)``.

    Raises:
        ConfigError: an unknown key, or a value that ``kind`` refuses.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            raise ConfigError(f"no setting '{name}.{key}'.{nearest(key, known)}")
    types, values = field_types(kind), {}
    for key, value in given.items():
        try:
            values[key] = typed(types[key], value)
        except ValueError as error:
            raise ConfigError(f"{name}.{key}={value!r}: {error}") from None
    return kind(**values)
