"""zone.nii.gz and margin.nii.gz: the ablation zone as a mask, and the margin, over the patient's images."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from thermosim.anatomy.grid import Grid
from thermosim.outcome.results import TumorMargin
from thermosim.report.atomic import replacing

ELSEWHERE = 1000.0
"""What cells beside the tumours' surfaces hold in margin.nii.gz [mm]."""


def write_zone(path: Path, mask: NDArray[np.bool_] | NDArray[np.uint8], grid: Grid) -> None:
    """Write a mask or labels (nx, ny, nz) as uint8 NIfTI with the grid's RAS affine [mm], whole.

    NIfTI-1, sform and qform both set (code 1, scanner), no header text, so nothing about the
    patient or the machine is in it.
    """
    _write(path, mask.astype(np.uint8), grid)


def write_margin(path: Path, tumors: Sequence[TumorMargin], grid: Grid) -> None:
    """Write the margin [mm] on the tumours' surfaces as float32 NIfTI, whole or not at all.

    A cell whose centre lies within one cell of a surface has the margin of the nearest point of it, all
    others ``ELSEWHERE``, so that the smallest value is the minimal margin. (Not NaN: ITK reads it as 0.)
    """
    values = np.full(grid.shape, ELSEWHERE, np.float32)
    for tumor in tumors:
        index = grid.indices(tumor.surface.points)
        low = np.maximum(np.floor(index.min(axis=0)).astype(int) - 1, 0)
        high = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 2, grid.shape)
        if (low >= high).any():
            continue
        axes = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
        cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        reach = max(grid.spacing)
        distance, nearest = cKDTree(tumor.surface.points).query(
            grid.points(cells), distance_upper_bound=reach
        )
        near = np.isfinite(distance)
        values[tuple(cells[near].T)] = 1e3 * tumor.margin[nearest[near]]
    _write(path, values, grid)


def _write(path: Path, values: NDArray[np.generic], grid: Grid) -> None:
    image = nib.Nifti1Image(values, grid.affine_ras_mm())
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    with replacing(path) as temporary:
        # Compressed here, not by nibabel: its gzip header would carry the temporary name and the time.
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
