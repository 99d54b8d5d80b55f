"""Restore what a run changes in its process, so that a notebook continues as before."""

import contextlib
import faulthandler
import gc
import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator

from fedimb import process_env


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Restore the process's threads, environment and random numbers after the block, also after an error in it.

    Restored are torch's threads; the variables of `fedimb.process_env`, which are set inside; the global generators of
    Python, NumPy and torch; the hooks for uncaught errors, which Ray replaces; and `sys.path`, if the working folder
    was added to it to find a user's model class. What a library changes when it is imported stays changed.
    """
    with process_env.defaults(), _random_numbers(), _threads(), _path(), _uncaught():
        yield


_SELDOM = 200_000  # new objects between two collections while a command starts; Python's own limit is 700
_usual: tuple[int, int, int] | None = None


def collect_seldom() -> None:
    """Collect garbage seldom from now on, until `collect_as_usual`: for the start of a process that is a command.

    Imports make a million objects, of which nearly all stay. Python's collector looks through them again and again,
    which was a fifth of the time until a run's first round.
    """
    global _usual
    if _usual is None:
        _usual = gc.get_threshold()
        gc.set_threshold(_SELDOM, *_usual[1:])


def collect_as_usual() -> None:
    """Undo `collect_seldom`, if it was called: training makes reference cycles that hold tensors.

    What is there by now is not looked through any more: nearly all of it stays until the process ends.
    """
    global _usual
    if _usual is not None:
        gc.freeze()
        gc.set_threshold(*_usual)
        _usual = None


@contextlib.contextmanager
def log_level(name: str, level: int) -> Iterator[None]:
    """Set a logger to another level inside the block."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def handlers() -> Iterator[None]:
    """Restore signal and crash handlers after the block: Ray replaces them while it runs."""
    signals, crashes = {one: signal.getsignal(one) for one in signal.valid_signals()}, faulthandler.is_enabled()
    try:
        yield
    finally:
        if faulthandler.is_enabled() and not crashes:
            faulthandler.disable()
        if threading.current_thread() is threading.main_thread():  # no other thread may set signal handlers
            for one, handler in signals.items():
                if handler is not None and signal.getsignal(one) is not handler:
                    signal.signal(one, handler)


@contextlib.contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set ``stop`` inside the block; in another thread than the main one nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, lambda *_: stop.set()) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextlib.contextmanager
def _random_numbers() -> Iterator[None]:
    import numpy as np
    import torch

    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if gpus is not None:
            torch.cuda.set_rng_state_all(gpus)


@contextlib.contextmanager
def _uncaught() -> Iterator[None]:
    hook = sys.excepthook
    try:
        yield
    finally:
        sys.excepthook = hook


@contextlib.contextmanager
def _threads() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _path() -> Iterator[None]:
    here = os.getcwd()
    known = here in sys.path
    try:
        yield
    finally:
        if not known and here in sys.path:
            sys.path.remove(here)
