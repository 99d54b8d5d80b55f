"""Errors a user sees: each says what was wrong, where, and what to do. The command line prints them as one line."""

import difflib
from collections.abc import Iterable


class FedimbError(Exception):
    """Base of every error fedimb raises on purpose. ``exit_code`` is what the command line exits with."""

    exit_code = 1


class ConfigError(FedimbError):
    """The configuration cannot be run: unknown key, wrong type, refused combination. Raised before any work."""

    exit_code = 2


class DataError(FedimbError):
    """The data cannot be used as asked: says the file or class and the remedy."""

    exit_code = 2


class RunFailed(FedimbError):
    """A run stopped part-way; the run folder can be resumed after the cause is mended."""

    exit_code = 1


class RunDiverged(RunFailed):
    """A run's weights are no longer finite: training went astray, and would again with the same configuration."""


class RunWaiting(FedimbError):
    """A step waits for a person (`Wait`): not a failure. The run is resumed later."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


def nearest(wrong: str, valid: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` or, when nothing is near, the valid names; empty when there are none.

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
