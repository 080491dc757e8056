"""Four padded fields that the potential and the heat equation use in turn."""

from __future__ import annotations

from dataclasses import dataclass

from thermosim.backends.base import Array, Backend, Layout


@dataclass
class Workspace:
    """Scratch memory; a user may exchange a field with one of its own of the same kind.

    The ghost cells of `first` and `second` hold the temperature of the box's faces, those of
    `third` and `zeroed` are zero and stay so.
    """

    first: Array
    second: Array
    third: Array
    zeroed: Array

    @classmethod
    def allocate(cls, backend: Backend, layout: Layout, boundary_temperature: float) -> Workspace:
        return cls(
            backend.field(layout, boundary_temperature),
            backend.field(layout, boundary_temperature),
            backend.field(layout),
            backend.field(layout),
        )
