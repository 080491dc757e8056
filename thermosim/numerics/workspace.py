"""Padded fields that the potential and the heat equation use in turn."""

from __future__ import annotations

from dataclasses import dataclass

from thermosim.backends.base import Array, Backend, Layout
from thermosim.numerics.faces import Faces


@dataclass
class Workspace:
    """Scratch memory; a user may exchange a field with one of its own of the same kind.

    The ghost cells of `first` and `second` hold the temperature of the box's faces, those of
    `third` and `zeroed` are zero and stay so. `faces`: conductances, of current or of heat.
    """

    first: Array
    second: Array
    third: Array
    zeroed: Array
    faces: Faces

    @classmethod
    def allocate(cls, backend: Backend, layout: Layout, boundary_temperature: float) -> Workspace:
        return cls(
            backend.field(layout, boundary_temperature),
            backend.field(layout, boundary_temperature),
            backend.field(layout),
            backend.field(layout),
            Faces.allocate(backend, layout),
        )
