"""margin.vtp: the tumours' surfaces with their margin, for 3D Slicer, ParaView and scripts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyvista as pv

from thermosim.errors import InputError
from thermosim.outcome.results import TumorMargin
from thermosim.report.atomic import replacing


def write_margin_mesh(path: Path, *tumors: TumorMargin) -> None:
    """Write the surfaces (LPS, mm) with the point arrays `margin_mm`, `near_capsule` and `tumor`.

    `near_capsule` is 0 or 1; `tumor` counts the tumours from 0, and the field array `tumor_names` names
    them. The field array `SPACE` tells 3D Slicer that the points are LPS.
    """
    if not tumors:
        raise InputError("there is no tumour whose margin could be written")
    offsets = np.cumsum([0, *(len(tumor.margin) for tumor in tumors[:-1])])
    mesh = pv.PolyData.from_regular_faces(
        1e3 * np.concatenate([tumor.surface.points for tumor in tumors]),
        np.concatenate([t.surface.triangles + o for t, o in zip(tumors, offsets, strict=True)]),
    )
    mesh.point_data["margin_mm"] = 1e3 * np.concatenate([tumor.margin for tumor in tumors]).astype(np.float64)
    mesh.point_data["near_capsule"] = np.concatenate([tumor.near_capsule for tumor in tumors]).astype(
        np.uint8
    )
    mesh.point_data["tumor"] = np.repeat(
        np.arange(len(tumors), dtype=np.uint8), [len(tumor.margin) for tumor in tumors]
    )
    mesh.field_data["tumor_names"] = [tumor.name for tumor in tumors]
    mesh.field_data["SPACE"] = ["LPS"]
    mesh.set_active_scalars("margin_mm")
    with replacing(path) as temporary:
        mesh.save(temporary)
