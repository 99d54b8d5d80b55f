"""Errors a user sees: each says where, what is wrong, and what to do. The command line prints them as one line."""

import difflib
from collections.abc import Iterable


class FedimbError(Exception):
    """Base class of every error that fedimb raises on purpose. ``exit_code`` is the exit code of the command line."""

    exit_code = 1


class ConfigError(FedimbError):
    """The configuration cannot be run: unknown key, wrong type, refused combination. Raised before any work."""

    exit_code = 2


class DataError(FedimbError):
    """The data cannot be used as configured; the message names the file or class and the remedy."""

    exit_code = 2


class RunFailed(FedimbError):
    """A run stopped early; it can be resumed from its run folder after the cause is fixed."""

    exit_code = 1


class RunDiverged(RunFailed):
    """A run's weights are no longer finite: training diverged, and would again with the same configuration."""


class RunSuspect(FedimbError):
    """A run finished, and everything is written, but its result should not be trusted; see ``run.on_suspect``."""

    exit_code = 3


class RunWaiting(FedimbError):
    """The run is waiting for a person (step `Wait`): not a failure. Resume it later."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


def nearest(wrong: str, valid: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` or, if nothing is close, the valid names; empty if there are none.

    Args:
        wrong: what the user wrote.
        valid: the names that would have worked.

    Example:
        >>> nearest("lokal", ["local", "loss", "rounds"])
        " Did you mean 'local'?"
    """
    names = sorted(set(valid))
    if close := difflib.get_close_matches(wrong, names, n=1, cutoff=0.5):
        return f" Did you mean '{close[0]}'?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f" Valid: {shown}." if names else ""
