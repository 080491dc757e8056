"""Small drawings for the report as inline SVG."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from thermosim.outcome.results import TumorMargin
from thermosim.report.verdict import MARGIN_CLASSES, margin_color, surface_center

INK = "#2b2f36"
GRID_LINE = "#e3e5e8"
MUTED = "#6a717b"
MOST_POINTS = 700


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from below `low` to above `high`.

    Examples
    --------
    >>> nice_ticks(0.0, 9.3, 5)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    span = high - low if high > low else max(abs(high), 1.0)
    raw = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= raw * 0.999)
    start = math.floor(low / step + 1e-9)
    end = math.ceil((low + span) / step - 1e-9)
    return [float(round(i * step, 12)) for i in range(start, end + 1)]


def svg_text(
    x: float, y: float, text: str, anchor: str = "middle", color: str = MUTED, more: str = ""
) -> str:
    """Text of an SVG drawing at a point."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}"{more}>{escape(text)}</text>'


def vertex_areas(tumor: TumorMargin) -> NDArray[np.float64]:
    """Surface that each vertex stands for [m²]: a third of its triangles."""
    corners = tumor.surface.points[tumor.surface.triangles]
    areas = 0.5 * np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    shares = np.repeat(areas / 3.0, 3)
    return np.bincount(tumor.surface.triangles.ravel(), shares, minlength=len(tumor.surface.points)).astype(
        np.float64
    )


def margin_histogram(tumor: TumorMargin) -> str:
    """Share of the tumour's surface by margin, in steps of 1 mm, in the colours of the classes."""
    width, height, left, bottom, top, right = 470, 250, 48, 40, 14, 12
    margin = 1e3 * tumor.margin
    good = np.isfinite(margin)
    if not good.any():
        return '<p class="muted">No margin to show.</p>'
    low, high = math.floor(margin[good].min()), math.floor(margin[good].max()) + 1
    step = max(1, math.ceil((high - low) / 60))
    edges = np.arange(low, high + step, step, dtype=float)
    share, _ = np.histogram(margin[good], edges, weights=vertex_areas(tumor)[good])
    share = 100 * share / share.sum()
    ticks = nice_ticks(0.0, float(share.max()), 4)
    first, last = min(edges[0], 0.0), max(edges[-1], 12.0)

    def px(value: float) -> float:
        return float(left + (width - left - right) * (value - first) / (last - first))

    def py(value: float) -> float:
        return height - bottom - (height - bottom - top) * value / ticks[-1]

    parts = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="Histogram of the margin">'
    ]
    for tick in ticks:
        parts.append(f'<path d="M{left} {py(tick):.1f}H{width - right}" stroke="{GRID_LINE}"/>')
        parts.append(svg_text(left - 7, py(tick) + 4, f"{tick:g}%", "end"))
    for edge, value in zip(edges[:-1], share, strict=True):
        if value > 0:
            parts.append(
                f'<rect x="{px(edge) + 0.5:.1f}" y="{py(value):.1f}" '
                f'width="{px(edge + step) - px(edge) - 1:.1f}" '
                f'height="{height - bottom - py(value):.1f}" fill="{margin_color(edge + 0.5 * step)}"/>'
            )
    for limit in (0.0, 5.0, 10.0):
        parts.append(
            f'<path d="M{px(limit):.1f} {top}V{height - bottom}" stroke="{INK}" stroke-dasharray="3 3"/>'
        )
    for tick in nice_ticks(first, last, 8):
        if first <= tick <= last:
            parts.append(svg_text(px(tick), height - bottom + 16, f"{tick:g}"))
    parts.append(
        svg_text((left + width - right) / 2, height - 5, "margin [mm]; share of the tumour's surface")
    )
    return "".join(parts) + "</svg>"


def png_data_uri(pixels: NDArray[np.uint8]) -> str:
    """RGB pixels (rows, columns, 3) as a PNG data link."""
    rows, columns, _ = pixels.shape
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw, 9))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(data).decode()


def unrolled_margin(tumor: TumorMargin, rows: int = 120) -> NDArray[np.float64]:
    """Margin [m] by direction from the tumour's centre, shape (rows, 2·rows).

    Rows go from head to feet, columns from the back over the patient's right, front and left to the
    back again, as if the tumour's skin were unrolled by someone in front of the patient. Where a
    direction meets the surface more than once the thinnest margin counts.
    """
    center = surface_center(tumor.surface)
    arms = tumor.surface.points - center
    lengths = np.linalg.norm(arms, axis=1)
    keep = (lengths > 0) & np.isfinite(tumor.margin)
    tree = cKDTree(arms[keep] / lengths[keep, None])
    polar = np.pi * (np.arange(rows) + 0.5) / rows
    around = 2 * np.pi * (np.arange(2 * rows) + 0.5) / (2 * rows)
    theta, phi = np.meshgrid(polar, around, indexing="ij")
    # Column 0 looks to the back (+y), a quarter to the right (−x), half to the front (−y).
    rays = np.stack([-np.sin(theta) * np.sin(phi), np.sin(theta) * np.cos(phi), np.cos(theta)], axis=-1)
    neighbors = min(4, int(keep.sum()))
    distance, nearest = tree.query(rays, k=list(range(1, neighbors + 1)))
    values = tumor.margin[keep][nearest]
    # Neighbours much farther than the nearest do not lie on this ray.
    values = np.where(distance <= 1.5 * distance[..., :1] + 0.01, values, np.inf)
    return np.asarray(values.min(axis=-1))


def margin_map(tumor: TumorMargin) -> str:
    """The tumour's surface unrolled, coloured by margin, with a mark at the thinnest place."""
    width, height, left, top = 560, 300, 46, 12
    inner_width, inner_height = 500, 250
    if not np.isfinite(tumor.margin).any():
        return '<p class="muted">No margin to show.</p>'
    margin = 1e3 * unrolled_margin(tumor)
    pixels = np.zeros((*margin.shape, 3), np.uint8)
    pixels[:] = 154
    for lower, upper, color, _ in MARGIN_CLASSES:
        pixels[(margin >= lower) & (margin < upper)] = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    parts = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="Map of the margin">',
        f'<image x="{left}" y="{top}" width="{inner_width}" height="{inner_height}" '
        'preserveAspectRatio="none" '
        f'href="{png_data_uri(pixels)}"/>',
        f'<rect x="{left}" y="{top}" width="{inner_width}" height="{inner_height}" fill="none" '
        f'stroke="{INK}"/>',
    ]
    for quarter, word in enumerate(("back", "patient's right", "front", "left", "back")):
        tick = left + inner_width * quarter / 4
        parts.append(f'<path d="M{tick} {top}v{inner_height + 4}" stroke="{INK}" stroke-opacity="0.25"/>')
        parts.append(svg_text(tick, top + inner_height + 18, word))
    for share, word in ((0.04, "head"), (0.5, "level"), (0.99, "feet")):
        parts.append(svg_text(left - 6, top + inner_height * share, word, "end"))
    arm = tumor.thinnest_point - surface_center(tumor.surface)
    if np.all(np.isfinite(arm)) and np.linalg.norm(arm) > 0:
        arm = arm / np.linalg.norm(arm)
        column = (math.atan2(-arm[0], arm[1]) % (2 * math.pi)) / (2 * math.pi)
        mark_x = left + inner_width * column
        mark_y = top + inner_height * math.acos(float(np.clip(arm[2], -1, 1))) / math.pi
        parts.append(
            f'<circle cx="{mark_x:.1f}" cy="{mark_y:.1f}" r="7" fill="none" stroke="#fff" stroke-width="4"/>'
            f'<circle cx="{mark_x:.1f}" cy="{mark_y:.1f}" r="7" fill="none" stroke="{INK}" stroke-width="2"/>'
        )
        anchor = "end" if column > 0.75 else "start"
        shift = -12 if column > 0.75 else 12
        parts.append(
            svg_text(
                mark_x + shift,
                mark_y + 4,
                f"thinnest: {round(1e3 * tumor.all_around.minimum, 1) + 0.0:.1f} mm".replace("-", "−"),
                anchor,
                INK,
                ' font-weight="600" paint-order="stroke" stroke="#fff" stroke-width="3.5"',
            )
        )
    return "".join(parts) + "</svg>"


def legend(items: Sequence[tuple[str, str]]) -> str:
    """Colour swatches with names."""
    return (
        '<p class="legend">'
        + "".join(f'<span><i style="background:{color}"></i>{escape(name)}</span>' for color, name in items)
        + "</p>"
    )
