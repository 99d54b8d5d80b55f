"""Errors a user sees: each says where, what is wrong, and what to do. The command line prints them as one line."""

import difflib
import errno
import traceback
from collections.abc import Iterable
from typing import TypeVar


class FedimbError(Exception):
    """Base class of every error that fedimb raises on purpose.

    Attributes:
        exit_code: exit code of the command line.
        cause_traceback: traceback of the error in a part's own code that this one reports (see `error_from`), or "".
    """

    exit_code = 1
    cause_traceback = ""


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


E = TypeVar("E", bound=FedimbError)


def error_from(kind: type[E], text: str, cause: BaseException) -> E:
    """A one-line error for an exception in code that fedimb called: a plug-in's constructor, a user's module.

    Unless fedimb raised the cause on purpose, its traceback is kept with the error, also when that is sent to another
    process; the command line and a client's error reply show it, so that the author finds the line. Use as
    ``raise error_from(ConfigError, text, error) from error``.
    """
    error = kind(text)
    error.cause_traceback = traceback_of(cause)
    return error


def traceback_of(error: BaseException) -> str:
    """What to show below the message of an error: the traceback of the code at fault; "" if that says all.

    Of an error that fedimb raised on purpose: what `error_from` kept, with it or with an error that caused it.
    """
    if not isinstance(error, FedimbError):
        return "".join(traceback.format_exception(error)).rstrip()
    if error.cause_traceback or error.__cause__ is None:
        return error.cause_traceback
    return traceback_of(error.__cause__) if isinstance(error.__cause__, FedimbError) else ""


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
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f" Valid: {shown}." if names else ""


_REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space: the quota is used up",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EACCES: "give this user write access, or choose another folder",
    errno.EPERM: "give this user write access, or choose another folder",
    errno.EROFS: "choose a folder that can be written",
    errno.ENOTDIR: "a file is where a folder should be: choose another folder",
    errno.EEXIST: "a file is where a folder should be: choose another folder",
    errno.EISDIR: "a folder is where a file should be: choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "check the disk",
}


def storage_reason(error: OSError) -> str | None:
    """``path: what is wrong; remedy`` for an error of a disk or its permissions; None for any other (a network, ...).

    Example:
        >>> storage_reason(OSError(errno.ENOSPC, "No space left on device", "runs/a"))
        'runs/a: No space left on device; free some space there'
    """
    if error.errno not in _REMEDIES or isinstance(error, ConnectionError | TimeoutError):
        return None
    place = error.filename2 or error.filename
    return f"{f'{place}: ' if place else ''}{error.strerror}; {_REMEDIES[error.errno]}"
