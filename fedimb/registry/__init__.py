"""From names in YAML to code: registered parts, their typed arguments, dotted paths of a user's own classes."""

from fedimb.registry.entries import (
    KINDS,
    Entry,
    accepted,
    build,
    check_args,
    chosen_by,
    elsewhere,
    flags,
    get,
    has_module,
    isolated,
    it_is,
    maker,
    names,
    parameters,
    register,
)

__all__ = [
    "KINDS",
    "Entry",
    "accepted",
    "build",
    "check_args",
    "chosen_by",
    "elsewhere",
    "flags",
    "get",
    "has_module",
    "isolated",
    "it_is",
    "maker",
    "names",
    "parameters",
    "register",
]
