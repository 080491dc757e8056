"""zone.nii.gz: the ablation zone as a mask that opens over the patient's images."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid
from thermosim.report.atomic import replacing


def write_zone(path: Path, mask: NDArray[np.bool_] | NDArray[np.uint8], grid: Grid) -> None:
    """Write a mask or labels (nx, ny, nz) as uint8 NIfTI with the grid's RAS affine [mm], whole.

    NIfTI-1, sform and qform both set (code 1, scanner), no header text, so nothing about the
    patient or the machine is in it.
    """
    image = nib.Nifti1Image(mask.astype(np.uint8), grid.affine_ras_mm())
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    with replacing(path) as temporary:
        # Compressed here, not by nibabel: its gzip header would carry the temporary name and the time.
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
