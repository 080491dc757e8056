"""Small treatments give the figures they gave before."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from solver_cases import SCENARIOS

sys.path.insert(0, str(Path(__file__).parent))
from figures import FILE, figures_of

KNOWN = json.loads(FILE.read_text())

# Rules of the time loop that are chosen afresh (when to solve again, how long a step is) move these
# figures by less, and so does another compiler. A wrong factor or a lost term moves them by more.
RELATIVE = {
    "initial_impedance_ohm": 1e-4,  # no time has passed: only the links and the solver
    "final_impedance_ohm": 0.01,
    "electrical_j": 0.01,
    "perfusion_j": 0.01,
    "walls_j": 0.01,
    "arrhenius_ml": 0.03,  # a hundredth of the temperature's rise is a tenth of the Arrhenius rate
    "cem43_ml": 0.03,
    "dead_fraction_ml": 0.02,
    "warm_ml_k": 0.01,
    "hottest_c": 0.02,
}


def test_every_treatment_has_its_figures() -> None:
    assert set(KNOWN) == set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_figures_have_not_moved(name: str) -> None:
    found = figures_of(name)
    assert set(found) == set(RELATIVE)
    moved = {
        key: (KNOWN[name][key], value)
        for key, value in found.items()
        if value != pytest.approx(KNOWN[name][key], rel=RELATIVE[key], abs=1e-6)
    }
    assert moved == {}
