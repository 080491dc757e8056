"""What is wrong with a kernel: one error for each kind of fault."""

from __future__ import annotations

from typing import Any


class PtxError(RuntimeError):
    """A kernel did something that a GPU forbids or leaves undefined."""


class CompileError(PtxError):
    """NVRTC refused the source."""


class MemoryFault(PtxError):
    """An access out of bounds, misaligned, or a store to read-only memory."""


class UninitialisedRead(PtxError):
    """A value was read that nobody has written."""


class RaceError(PtxError):
    """Two accesses conflict and nothing orders them."""

    def __init__(self, message: str, races: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.races = races


class BarrierError(PtxError):
    """A barrier that not all threads reach, or a deadlock."""


class TrapError(PtxError):
    """The kernel stopped itself."""


class StepLimit(PtxError):
    """The kernel does not come to an end."""
