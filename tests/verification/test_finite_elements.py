"""The first minute of the case of two tissues, two needles and a vessel, against coarse finite elements.

The verification document compares all of it with fine ones (`section_finite_elements.py`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skfem import Basis
from verification.finite_element_case import (
    HALF_BOX,
    NEEDLES_X,
    RADIUS,
    TIP,
    UNCOOLED,
    VESSEL_RADIUS,
    Findings,
    by_finite_elements,
    by_program,
    mesh,
)

from thermosim.backends import select

FIRST_MINUTE = replace(UNCOOLED, duration=60.0)


@pytest.fixture(scope="module")
def exact() -> Findings:
    return by_finite_elements(0.6, FIRST_MINUTE)


@pytest.fixture(scope="module")
def found() -> Findings:
    return by_program(1e-3, FIRST_MINUTE, select("cpu"))


def test_mesh_fills_the_box() -> None:
    made = mesh(0.6)
    points = made.mesh.doflocs
    assert points[1].min() == 0.0
    assert np.abs(points).max(axis=1) == pytest.approx(HALF_BOX)
    basis = Basis(made.mesh, made.mesh.elem(), intorder=4)
    cap = 2 / 3 * np.pi * RADIUS**3
    rods = len(NEEDLES_X) * (np.pi * RADIUS**2 * (HALF_BOX[2] - TIP - RADIUS) + cap)
    assert 2 * basis.dx.sum() == pytest.approx(8 * HALF_BOX.prod() - rods, rel=1e-5)
    lumen = np.pi * VESSEL_RADIUS**2 * 2 * HALF_BOX[2]
    # half a circle of four parabolic arcs on this mesh
    assert 2 * basis.dx[made.is_blood].sum() == pytest.approx(lumen, rel=6e-3)


def test_resistance(exact: Findings, found: Findings) -> None:
    # what is asked of 1 mm; seen 0.3 % and 0.9 %, half of it the coarse mesh's own
    assert found.resistance[0] == pytest.approx(exact.resistance[0], rel=0.02)
    assert found.resistance[-1] == pytest.approx(exact.resistance[-1], rel=0.02)
    assert found.share == pytest.approx(exact.share, rel=0.02)


def test_temperature(exact: Findings, found: Findings) -> None:
    # 1 K is asked of 1 mm after five minutes; after one, tissue is half as warm; seen 0.33 K
    errors = {name: found.temperatures[name] - wanted for name, wanted in exact.temperatures.items()}
    assert {name: error for name, error in errors.items() if not abs(error) < 0.6} == {}
