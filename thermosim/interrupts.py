"""Ctrl-C, noted or held back, so that nothing is broken apart that must stay whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noted(asked: list[bool], breaks: bool = True) -> Iterator[list[bool]]:
    """Ctrl-C sets a flag, ``asked[0]``; outside the main thread nothing is changed.

    `breaks`: it raises KeyboardInterrupt where the flag is set already, so that a second one breaks off.
    """
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.getsignal(signal.SIGINT)
    note(asked, breaks)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def note(asked: list[bool], breaks: bool = False) -> None:
    """As `noted`, for good."""

    def remember(_signal: int, _frame: FrameType | None) -> None:
        if asked[0] and breaks:
            raise KeyboardInterrupt
        asked[0] = True

    signal.signal(signal.SIGINT, remember)


@contextmanager
def at_once() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, as Python has it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def held_back() -> Iterator[None]:
    """Ctrl-C waits; so it does in processes that are started meanwhile, until they `let_through`.

    Where the system cannot hold it back (Windows), it comes at once.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """Take a Ctrl-C that was held back when this process was started."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
