"""The process that study workers are forked from: it imports torch and the rest once for all of them.

This file imports nothing heavy, so that the process can be started before its parent imports torch too.
"""

import multiprocessing as mp
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

_PRELOAD = ["fedimb.study.preload", "fedimb.study.work", "fedimb.study.computed", "fedimb.clientapp.app"]


def workers_context() -> ForkServerContext:
    """The context in which workers are started."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def start_early() -> None:
    """Start the process now, for a command that will need it: it imports while the command itself does."""
    workers_context()
    forkserver.ensure_running()
