"""The command line: short verbs and key=value settings. Heavy modules are imported only when a command needs them."""

from fedimb.cli.main import main

__all__ = ["main"]
