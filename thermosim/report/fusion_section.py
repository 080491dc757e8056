"""How good the fusion of two images is: figures, and chequerboards of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid
from thermosim.outcome.fusion import FusionQuality
from thermosim.outcome.observation import Observation
from thermosim.outcome.registration import no_motion, resampled
from thermosim.report.charts import png_data_uri
from thermosim.report.observed_slices import WINDOW, cells_around
from thermosim.report.tables import number, table

TILE = 20e-3
"""Edge of a chequerboard's squares [m]."""
BOARD_SPACING = 1.2e-3
TINT = (0.86, 0.94, 1.0)
"""Squares of the image after treatment are a little blue."""
PLANES = (("Axial", 2, 0, 1, "RLAP"), ("Coronal", 1, 0, 2, "RLSI"), ("Sagittal", 0, 1, 2, "APSI"))


def fusion_summary(observation: Observation) -> dict[str, Any]:
    """Figures of the fusion; null where there is none to give."""
    quality = observation.quality

    def errors(values: NDArray[np.float64] | None) -> dict[str, Any] | None:
        if values is None:
            return None
        return {"mean_mm": 1e3 * values.mean(), "max_mm": 1e3 * values.max(), "n": len(values)}

    matrix = observation.motion.matrix
    millimetres = None
    if matrix is not None:
        millimetres = matrix.copy()
        millimetres[:3, 3] *= 1e3
    known = quality or FusionQuality(float("nan"), float("nan"))  # NaN becomes null
    return {
        "method": observation.motion.kind,
        "rotation_deg": float(np.degrees(known.rotation)),
        "unexpected_shift_mm": 1e3 * known.shift,
        "matrix_before_to_after_lps_mm": millimetres,
        "similarity_before": known.similarity_before,
        "similarity_after": known.similarity_after,
        "liver_overlap_before": known.overlap_before,
        "liver_overlap_after": known.overlap_after,
        "landmark_error_before": errors(known.landmark_errors_before),
        "landmark_error_after": errors(known.landmark_errors_after),
        "largest_deformation_mm": None if known.deformation is None else 1e3 * known.deformation,
        "smallest_jacobian": known.jacobian,
        "shown_share_of_the_liver": known.cover,
        "warnings": list(known.warnings),
    }


def fusion_section(observation: Observation, summary: Mapping[str, Any]) -> str:
    """Table and chequerboards; nothing where nothing was fused or measured."""
    fusion = summary["fusion"]
    if observation.quality is None:
        return ""
    rows = [
        ["Correlation of the CTs (1: alike)", fusion["similarity_before"], fusion["similarity_after"], 2],
        [
            "Overlap of the livers (Dice, 1: alike)",
            fusion["liver_overlap_before"],
            fusion["liver_overlap_after"],
            3,
        ],
    ]
    for name, key in (("Landmarks off by, mean mm", "mean_mm"), ("Landmarks off by, worst mm", "max_mm")):
        pair = [(fusion[f"landmark_error_{when}"] or {}).get(key) for when in ("before", "after")]
        rows.append([name, *pair, 1])
    shown = [
        [str(text), number(before, digits), number(after, digits)]
        for text, before, after, digits in rows
        if before is not None or after is not None
    ]
    parts = ["<h2>How well the images lie over each other</h2>"]
    if shown:
        parts.append(table(["", "Frames as they are", "Fused"], shown))
    moved = f"The fusion turns by {number(fusion['rotation_deg'], 1, '°')}"
    if fusion["largest_deformation_mm"] is not None:
        moved += (
            f" and deforms by up to {number(fusion['largest_deformation_mm'], 1, 'mm')} (volumes shrink to "
            f"{number(fusion['smallest_jacobian'], 2)} at most)"
        )
    if observation.motion.kind != "none":
        parts.append(f"<p>{moved}. Its motion is kept in transform.tfm.</p>")
    if fusion["method"] == "landmarks":
        parts.append("<p>Each landmark's error is that of the motion fitted to all others.</p>")
    boards = chequerboards(observation)
    if boards:
        parts.append(
            '<p class="muted">Chequerboards through the middle of the tumour: grey squares before, bluish '
            "ones after treatment. Borders of liver and vessels should run on from square to square.</p>"
            f'<div class="planes">{boards}</div>'
        )
    return "\n".join(parts)


def chequerboards(observation: Observation) -> str:
    """Three planes through the tumour's centre, both CTs in alternate squares."""
    inputs = observation.inputs
    if inputs.ct_before is None or inputs.ct_after is None:
        return ""
    center = observation.tumor.surface.points.mean(axis=0)
    grid = _extent(observation)
    middle = np.clip(np.rint(grid.indices(center)).astype(int), 0, np.asarray(grid.shape) - 1)
    figures = []
    for name, through, across, down, edges in PLANES:
        shape, origin = list(grid.shape), np.asarray(grid.origin).copy()
        shape[through] = 1
        origin[through] += grid.spacing[through] * middle[through]
        plane = Grid(tuple(shape), grid.spacing, tuple(float(x) for x in origin))  # type: ignore[arg-type]
        pixels = [
            np.squeeze(resampled(ct, plane, motion, outside=WINDOW[0]), axis=through)
            for ct, motion in ((inputs.ct_before, no_motion()), (inputs.ct_after, observation.motion))
        ]
        grey = [np.clip((p - WINDOW[0]) / (WINDOW[1] - WINDOW[0]), 0, 1) for p in pixels]
        tiles = [np.arange(grid.shape[axis]) * grid.spacing[axis] // TILE for axis in (across, down)]
        odd = (tiles[0][:, None] + tiles[1][None, :]) % 2 == 1
        color = np.where(odd[..., None], grey[1][..., None] * np.asarray(TINT), grey[0][..., None])
        color = color.transpose(1, 0, 2)
        if down == 2:
            color = color[::-1]
        figures.append(
            f"<figure><figcaption><strong>{name}</strong><span class='muted'>left edge {edges[0]}, right "
            f"{edges[1]}</span></figcaption><img alt='Chequerboard, {name.lower()}' class='board' "
            f'src="{png_data_uri(np.round(255 * color).astype(np.uint8))}"></figure>'
        )
    return "".join(figures)


def _extent(observation: Observation) -> Grid:
    """Cells over the liver if it is known, else over tumour and zone and 60 mm more."""
    points = [observation.tumor.surface.points, observation.zone_shape.surface.points]
    padding = 60e-3
    if observation.liver is not None:
        mask, grid = observation.liver
        points.append(grid.points(np.argwhere(mask[::4, ::4, ::2]) * [4, 4, 2]))
        padding = 25e-3
    coarse = cells_around(points, BOARD_SPACING, padding)
    extent = np.asarray(coarse.shape) * coarse.spacing[0]
    shape = tuple(int(n) for n in np.ceil(extent / BOARD_SPACING))
    middle = np.asarray(coarse.origin) + 0.5 * (np.asarray(coarse.shape) - 1) * coarse.spacing[0]
    return Grid.box(tuple(float(x) for x in middle), shape, BOARD_SPACING)  # type: ignore[arg-type]
