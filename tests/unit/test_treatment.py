"""The geometry of a treatment as the equations see it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from thermosim.backends.cpu import CpuBackend
from thermosim.treatment import Treatment

sys.path.append(str(Path(__file__).resolve().parents[1] / "verification"))

from gpu_case import small_case


def test_only_cells_held_by_a_wall_get_inertia() -> None:
    """A fitted face alone must never make a cell heavier: it would warm too slowly for minutes."""
    problem = small_case()
    treatment = Treatment(problem, CpuBackend(1))
    treatment.place(problem.electrodes)
    heavy = np.flatnonzero(treatment.host(treatment.labels).ravel() > treatment.lumen)
    walls = [*treatment._vessel_walls, *treatment._cooled_walls(treatment.electrodes)]
    held = np.unique(np.concatenate([wall.links.wall_cells for wall in walls]))
    assert len(heavy) > 0  # the case has stiff walls at all
    assert np.isin(heavy, held).all()
    assert len(heavy) < len(held)  # and most walls are not stiff
