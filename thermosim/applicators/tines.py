"""Curves of the tines of a multitined device: arcs that leave the trunk forwards and bend outwards."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Vector

EDGE = 4.0
"""Longest edge of a tine's polyline [wire radii]."""


def side_vectors(
    axis: NDArray[np.float64], angle: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two unit vectors across an axis, turned about it by `angle` [rad]; right-handed with it."""
    helper = np.zeros(3)
    helper[int(np.argmin(np.abs(axis)))] = 1.0
    first = np.cross(axis, helper)
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    return np.cos(angle) * first + np.sin(angle) * second, np.cos(angle) * second - np.sin(angle) * first


def tine_curves(
    tip: NDArray[np.float64],
    axis: NDArray[np.float64],
    trunk_radius: float,
    wire_radius: float,
    n_tines: int,
    deployment: float,
    turn: float,
    rotation: float = 0.0,
) -> tuple[tuple[Vector, ...], ...]:
    """Polylines of `n_tines` equal tines spread evenly around the trunk [m, LPS].

    Each tine leaves the rim of the trunk's round tip straight forwards and follows a circle, away from
    the trunk, until its direction has turned by `turn`; its tip then lies `deployment`/2 from the
    axis. With ρ the circle's radius, ρ (1 - cos turn) = deployment/2 - trunk radius.

    Parameters
    ----------
    tip : end of the trunk [m]. axis : unit vector from tip to handle.
    trunk_radius, wire_radius : [m].
    deployment : diameter of the circle through the tines' tips [m].
    turn : [rad]; up to π/2 the tines only spread (a starburst), beyond it they hook back (an umbrella).
    rotation : of the whole about the axis [rad].
    """
    rho = (0.5 * deployment - trunk_radius) / (1.0 - np.cos(turn))
    n_edges = max(int(np.ceil(rho * turn / (EDGE * wire_radius))), 8)
    angle = np.linspace(0.0, turn, n_edges + 1)
    outward = trunk_radius + rho * (1.0 - np.cos(angle))
    backward = trunk_radius - rho * np.sin(angle)
    root = tip + backward[:, None] * axis
    curves = []
    for number in range(n_tines):
        side, _ = side_vectors(axis, rotation + 2.0 * np.pi * number / n_tines)
        points = root + outward[:, None] * side
        curves.append(tuple(cast(Vector, tuple(float(c) for c in point)) for point in points))
    return tuple(curves)
