"""The surface of a tumour unfolded on an equal-area map, coloured by margin."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.outcome.results import TumorMargin
from thermosim.report.charts import INK, png_data_uri, svg_text
from thermosim.report.verdict import MARGIN_CLASSES, WET_COLOR, surface_center

ROWS = 160
HATCH = 9
"""Pixels from one line of the hatching to the next."""


def mollweide(rays: NDArray[np.floating]) -> NDArray[np.float64]:
    """Place of unit vectors (n, 3), LPS, on the map: (n, 2) in −1..1, across and upwards.

    The middle looks to the patient's front (−y), left of it lies the patient's right. With latitude φ
    (head: +π/2) and longitude λ: 2θ + sin 2θ = π sin φ, x = λ cos θ / π, y = sin θ.

    Examples
    --------
    >>> mollweide(np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])).round(3) + 0.0
    array([[ 0. ,  0. ],
           [-0.5,  0. ],
           [ 0. ,  1. ]])

    References
    ----------
    Snyder, Map Projections: A Working Manual (1987), eqs. 31-1 to 31-3.
    """
    directions = np.asarray(rays, dtype=np.float64)
    goal = np.pi * np.clip(directions[:, 2], -1.0, 1.0)
    theta = np.arcsin(np.clip(directions[:, 2], -1.0, 1.0)) * 0.9
    for _ in range(60):
        slope = np.maximum(2.0 + 2.0 * np.cos(2.0 * theta), 1e-9)
        step = (2.0 * theta + np.sin(2.0 * theta) - goal) / slope
        theta = np.clip(theta - step, -np.pi / 2, np.pi / 2)
        if np.abs(step).max(initial=0.0) < 1e-12:
            break
    longitude = np.arctan2(directions[:, 0], -directions[:, 1])
    return np.column_stack([longitude / np.pi * np.cos(theta), np.sin(theta)])


def map_rays(rows: int = ROWS) -> NDArray[np.float64]:
    """Unit vector of each pixel of the map, (rows, 2·rows, 3), NaN outside its ellipse."""
    up = 1.0 - 2.0 * (np.arange(rows) + 0.5) / rows
    across = -1.0 + (np.arange(2 * rows) + 0.5) / rows
    y, x = np.meshgrid(up, across, indexing="ij")
    theta = np.arcsin(y)
    sine = (2.0 * theta + np.sin(2.0 * theta)) / np.pi
    with np.errstate(divide="ignore", invalid="ignore"):
        longitude = np.pi * x / np.cos(theta)
    longitude = np.where(x**2 + y**2 <= 1.0, longitude, np.nan)
    ring = np.sqrt(1.0 - sine**2)
    return np.stack([ring * np.sin(longitude), -ring * np.cos(longitude), sine + 0 * longitude], axis=-1)


def unfolded(
    tumor: TumorMargin, rows: int = ROWS
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Margin [m] on the pixels of the map, which of them lie on it, and which lie near the capsule.

    Where a direction meets the surface more than once the thinnest margin counts. NaN: in blood.
    """
    return _unfolded(tumor.surface, tumor.margin, tumor.near_capsule, rows)


def _unfolded(
    surface: TriangleSurface, values: NDArray[np.float64], hatched: NDArray[np.bool_], rows: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    arms = surface.points - surface_center(surface)
    lengths = np.linalg.norm(arms, axis=1)
    keep = lengths > 0
    rays = map_rays(rows)
    on_map = np.isfinite(rays[..., 0])
    tree = cKDTree(arms[keep] / lengths[keep, None])
    neighbors = min(4, int(keep.sum()))
    distance, nearest = tree.query(rays[on_map], k=list(range(1, neighbors + 1)))
    near = values[keep][nearest]
    # Neighbours much farther than the nearest do not lie on this ray.
    beside = distance > 1.5 * distance[:, :1] + 0.01
    worst = np.where(beside | np.isnan(near), np.inf, near).min(axis=1)
    margin = np.full(on_map.shape, np.nan)
    margin[on_map] = np.where(np.isnan(near[:, 0]), np.nan, worst)
    capsule = np.zeros(on_map.shape, dtype=bool)
    capsule[on_map] = hatched[keep][nearest[:, 0]]
    return margin, on_map, capsule


@dataclass(frozen=True)
class Mark:
    """A ring on the map: at a point of the surface [m, LPS], with a few words."""

    point: NDArray[np.float64]
    text: str


def margin_map(tumor: TumorMargin) -> str:
    """The map as SVG, with the patient's sides, and a mark at the thinnest place."""
    text = f"thinnest: {round(1e3 * tumor.all_around.minimum, 1) + 0.0:.1f} mm".replace("-", "−")
    marks = [Mark(tumor.thinnest_point, text)]
    return surface_map(tumor.name, tumor.surface, tumor.margin, MARGIN_CLASSES, marks, tumor.near_capsule)


def surface_map(
    name: str,
    surface: TriangleSurface,
    values: NDArray[np.float64],
    classes: Sequence[tuple[float, float, str, str]],
    marks: Sequence[Mark],
    hatched: NDArray[np.bool_] | None = None,
    label: str = "Map of the margin",
) -> str:
    """Values [m] at a surface's vertices as a map; `classes`: limits [mm], colour and name."""
    width, height, left, top, wide, high = 560, 306, 26, 26, 508, 254
    if not np.isfinite(values).any():
        return '<p class="muted">No margin to show.</p>'
    if hatched is None:
        hatched = np.zeros(len(values), dtype=bool)
    margin, on_map, capsule = _unfolded(surface, values, hatched, ROWS)
    pixels = np.full((*margin.shape, 3), 255, np.uint8)
    pixels[on_map] = _rgb(WET_COLOR)
    for lower, upper, color, _ in classes:
        pixels[(1e3 * margin >= lower) & (1e3 * margin < upper)] = _rgb(color)
    if capsule.any() and not capsule[on_map].all():
        row, column = np.indices(capsule.shape)
        line = capsule & ((row + column) % HATCH == 0)
        pixels[line] = (0.45 * pixels[line] + 0.55 * 255).astype(np.uint8)
    middle_x, middle_y = left + wide / 2, top + high / 2

    def place(ray: NDArray[np.float64]) -> tuple[float, float]:
        across, up = mollweide(ray[None])[0]
        return middle_x + wide / 2 * float(across), middle_y - high / 2 * float(up)

    globe = f"globe-{zlib.crc32(name.encode()):x}"  # one for each tumour of the page
    ellipse = f'cx="{middle_x}" cy="{middle_y}" rx="{wide / 2}" ry="{high / 2}"'
    parts = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">',
        f'<clipPath id="{globe}"><ellipse {ellipse}/></clipPath>',
        f'<image x="{left}" y="{top}" width="{wide}" height="{high}" preserveAspectRatio="none" '
        f'clip-path="url(#{globe})" href="{png_data_uri(pixels)}"/>',
    ]
    for longitude in (-90, 0, 90):
        at = math.radians(longitude)
        heights = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 41))
        ring = np.sqrt(1 - heights**2)
        rays = np.column_stack([ring * math.sin(at), -ring * math.cos(at), heights])
        across, up = mollweide(rays).T
        path = "L".join(
            f"{middle_x + wide / 2 * a:.1f} {middle_y - high / 2 * b:.1f}"
            for a, b in zip(across, up, strict=True)
        )
        parts.append(f'<path d="M{path}" fill="none" stroke="{INK}" stroke-opacity="0.3"/>')
    parts.append(f'<path d="M{left} {middle_y}h{wide}" stroke="{INK}" stroke-opacity="0.3"/>')
    parts.append(f'<ellipse {ellipse} fill="none" stroke="{INK}"/>')
    bold = ' font-weight="600" paint-order="stroke" stroke="#fff" stroke-width="3"'
    for letter, side in (("R", (-1, 0, 0)), ("A", (0, -1, 0)), ("L", (1, 0, 0))):
        x, y = place(np.array(side, float))
        parts.append(svg_text(x, y + 4.5, letter, "middle", INK, bold))
    parts.append(svg_text(left - 8, middle_y + 4.5, "P", "end", INK, bold))
    parts.append(svg_text(left + wide + 8, middle_y + 4.5, "P", "start", INK, bold))
    parts.append(svg_text(middle_x, top - 9, "S (head)", "middle", INK, bold))
    parts.append(svg_text(middle_x, top + high + 19, "I (feet)", "middle", INK, bold))
    parts.append(svg_text(left, height - 6, "R: patient's right, A: front", "start"))
    parts.append(svg_text(left + wide, height - 6, "L: left, P: back", "end"))
    for mark in marks:
        arm = mark.point - surface_center(surface)
        if not np.all(np.isfinite(arm)) or not np.linalg.norm(arm) > 0:
            continue
        x, y = place(arm / np.linalg.norm(arm))
        for color, stroke in (("#fff", 4.5), (INK, 2)):
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" fill="none" stroke="{color}" '
                f'stroke-width="{stroke}"/>'
            )
        above = y > top + 0.3 * high
        parts.append(
            svg_text(min(max(x, 90), width - 90), y - 14 if above else y + 23, mark.text, "middle", INK, bold)
        )
    return "".join(parts) + "</svg>"


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
