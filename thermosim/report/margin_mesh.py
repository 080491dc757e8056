"""margin.vtp: a tumour's surface with its margin, for 3D Slicer, ParaView and scripts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyvista as pv

from thermosim.outcome.results import TumorMargin
from thermosim.report.atomic import replacing


def write_margin_mesh(path: Path, tumor: TumorMargin) -> None:
    """Write the surface (LPS, mm) with the point arrays `margin_mm` and `near_capsule` (0 and 1)."""
    mesh = pv.PolyData.from_regular_faces(1e3 * tumor.surface.points, tumor.surface.triangles)
    mesh.point_data["margin_mm"] = 1e3 * np.asarray(tumor.margin, dtype=np.float64)
    mesh.point_data["near_capsule"] = tumor.near_capsule.astype(np.uint8)
    mesh.set_active_scalars("margin_mm")
    with replacing(path) as temporary:
        mesh.save(temporary)
