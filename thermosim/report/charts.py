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

from thermosim.outcome.results import TumorMargin
from thermosim.report.verdict import margin_color

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


def legend(items: Sequence[tuple[str, str]]) -> str:
    """Colour swatches with names."""
    return (
        '<p class="legend">'
        + "".join(f'<span><i style="background:{color}"></i>{escape(name)}</span>' for color, name in items)
        + "</p>"
    )
