"""The command line: short verbs, key=value overrides. Nothing heavy is imported before a command needs it."""

from fedimb.cli.main import main

__all__ = ["main"]
