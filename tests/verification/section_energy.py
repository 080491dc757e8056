"""Where every joule goes, and that heat is power, in treatments with every kind of source and sink."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from solver_cases import SCENARIOS
from verification.sections import Claim, Section, section

from thermosim.backends.base import Backend
from thermosim.simulation import run
from thermosim.simulation_result import EnergyAudit

TITLE = "Energy audit and power identity"
SINKS = {
    "stored": "stored",
    "perfusion": "perfusion",
    "vessels": "vessels",
    "cooled_needles": "cooled needles",
    "faces": "faces",
}
COLORS = ["#8c8c8c", "#4c72b0", "#c44e52", "#55a868", "#ccb974"]

ENERGY_LIMIT = 0.1
"""[%] Perfusion and faces are booked by the trapezoidal rule over steps of up to 5 s; where tissue boils or
needles move, within a step of 4 K."""

POWER_LIMIT = 2e-3
"""[%] float32 fields and a residual of 1e-6 of the potential."""


def given(audit: EnergyAudit) -> float:
    """Electrical and metabolic energy [J]."""
    return audit.electrical + audit.metabolic


@section("energy", TITLE, 40)
def energy(backend: Backend) -> Section:
    text = """\
Treatments of about a minute on 32³ cells of 2 mm, one for each mode of the generator, kind of wall and turn
of events: pauses, needles in turn and pulled back, cooled needles, vessels, boiling. Given is electrical
and metabolic energy; found is heat stored (latent heat included), taken by perfusion, by vessels, by cooled
needles and through the box's faces. And the discrete identity Σ q h³ = Σ V I, before q is scaled to the
generator's exact power: the worst of all solves of a run."""
    audits: dict[str, EnergyAudit] = {}
    rows: list[tuple[str | float, ...]] = []
    power = 0.0
    for name, problem in SCENARIOS.items():
        result = run(problem(), backend)
        audits[name] = result.audit
        power = max(power, 100.0 * result.power_relative_error)
        rows.append(
            (
                name.replace("_", " "),
                f"{given(result.audit):.1f}",
                *(f"{getattr(result.audit, sink):.1f}" for sink in SINKS),
                f"{100.0 * result.audit.relative_error:.1e}",
                f"{100.0 * result.power_relative_error:.1e}",
            )
        )
    worst = max(audits, key=lambda name: audits[name].relative_error)

    def figure(figure: Figure) -> None:
        figure.set_size_inches(9.0, 4.2)
        axes = figure.subplots()
        names = list(audits)
        left = np.zeros(len(names))
        for (sink, words), color in zip(SINKS.items(), COLORS, strict=True):
            share = np.array([100.0 * getattr(audits[n], sink) / given(audits[n]) for n in names])
            axes.barh([n.replace("_", " ") for n in names], share, left=left, color=color, label=words)
            left = left + share
        axes.axvline(100.0, color="black", lw=0.8)
        axes.invert_yaxis()
        axes.set(xlabel="share of the energy given [%]", xlim=(0, 104), title="Where the energy went")
        figure.legend(frameon=False, loc="outside right upper")

    return Section(
        "energy",
        TITLE,
        text,
        (
            "treatment",
            "given [J]",
            *(f"{w} [J]" for w in SINKS.values()),
            "not found [%]",
            "Σ q h³ − Σ V I [%]",
        ),
        rows,
        figure,
        [
            Claim(
                f"energy not found again, worst ({worst.replace('_', ' ')})",
                100.0 * audits[worst].relative_error,
                ENERGY_LIMIT,
                "%",
            ),
            Claim("Σ q h³ against Σ V I, worst of all solves", power, POWER_LIMIT, "%"),
        ],
    )
