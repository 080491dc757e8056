"""A potential that fits its temperature has not drifted, whatever metal lies in the rows."""

from __future__ import annotations

import numpy as np
import pytest
from solver_cases import needle, plain_anatomy, small_problem

from thermosim.backends import select
from thermosim.treatment import Treatment


@pytest.mark.parametrize("n", [24, 37, 64, 120])
def test_no_drift_where_whole_vectors_are_metal(n: int) -> None:
    # the needle lies along the rows, its shaft fills most of some: a vector of the processor then holds
    # nothing but metal (a compiler once summed other cells' heat there, which gave 0.96)
    spacing = 0.5e-3
    lower = -0.5 * n * spacing
    electrode = needle(target=(0.0, 0.0, lower + 2e-3), active_length=4e-3)
    problem = small_problem(anatomy=plain_anatomy((16, 16, n), spacing), electrodes=(electrode,))
    treatment = Treatment(problem, select("cpu"))
    treatment.place((electrode,))
    potential = treatment.potential
    assert potential is not None
    assert treatment.solid_mask.any()
    potential.set_terminals(((0,),))
    potential.update_conductances(treatment.temperature)
    potential.solve(1e-6, 60)
    potential.joule_heating(np.ones(1), treatment.workspace.first, treatment.heat)
    factor, error = potential.drift(treatment.temperature, treatment.heat)
    assert factor == pytest.approx(1.0, abs=1e-6)  # float32 sums of rows, the same on both sides
    assert error < 1e-6
