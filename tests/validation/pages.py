"""The text of docs/validation.md from the rows of the scoreboard."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from validation.catalogue import DEFAULT_RELATIVE_SD, QUANTITIES, Experiment
from validation.score import PASSES_WITHIN, Summary, summarize

import thermosim

if TYPE_CHECKING:
    from validation.document import Row

STATES = {
    "ex_vivo_bovine": "ex vivo, bovine",
    "ex_vivo_porcine": "ex vivo, porcine",
    "in_vivo_porcine": "in vivo, porcine",
}
OTHER_CRITERIA = ("isotherm_60", "isotherm_54", "isotherm_50", "cem43")


MISSING = """\
- **Saline given off into the tissue** (E17). Not modelled: it needs a flow through the tissue, with the heat
  and the ions that it carries. Tried: tissue that keeps half of its σ when it boils.
- **Steam that moves and condenses farther out** (E3, E6, E9, E13). Boiling takes up latent heat where it
  happens, and σ collapses there; the heat does not travel. It would let more energy in before the impedance
  rises, and warm the gaps between needles. Tried: the latent heat alone.
- **Shrinkage** of coagulated tissue by 12 to 22 % in length above 60 °C (E5): zones are measured after it.
- **Tines that open in steps, and read more than 100 °C in moist tissue** (E10). Tried: a smaller span, a
  target below boiling, the whole published time.
- **Settings that the papers do not give**: the generators' limits (E6, E7), bare metal, cooling and losses
  in cables (E14). Tried: one beside the other, below.\
"""


def number(quantity: float, digits: int = 3) -> str:
    """Three significant digits without an exponent."""
    if not math.isfinite(quantity):
        return "none"
    if quantity == 0.0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(quantity))))
    return f"{quantity:.{places}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [" | ".join(head), " | ".join("---" for _ in head), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def what(row: Row) -> str:
    """What a row compares, in words."""
    one = row.measurement
    if one.label:
        return one.label
    words = QUANTITIES[one.quantity][0]
    return words if one.run == "main" else f"{words}, {one.run}"


def measured(row: Row) -> str:
    """Mean ± SD with its unit; an asterisk where the SD is the default, a dagger where it is ours."""
    one = row.measurement
    unit = "" if one.relative_to is not None else f" {QUANTITIES[one.quantity][1]}"
    mark = "" if one.has_published_sd else ("†" if one.relative_sd is not None else "*")
    bound = "at most " if one.at_most else ""
    return f"{bound}{number(one.mean)} ± {number(one.scale, 2)}{mark}{unit}"


def verdict(row: Row) -> str:
    """Calibrated, met or missed."""
    met = "met" if row.score.passes else "**missed**"
    if row.experiment.role == "calibration" and not row.measurement.second:
        return "calibrated"
    return met


def plain_table(rows: Sequence[Row]) -> str:
    """The scoreboard for a terminal."""
    lines = []
    for row in rows:
        kind = "" if row.is_case else ("calibrated" if not row.measurement.second else "by-product")
        lines.append(
            f"{row.experiment.id:4} {what(row):36.36} {measured(row):20} {number(row.score.predicted):>7} "
            f"{row.score.deviation:+6.2f} SD  {'met' if row.score.passes else 'MISSED':7}{kind}"
        )
    return "\n".join(lines)


def document(
    rows: Sequence[Row],
    experiments: Sequence[Experiment],
    calibration: Sequence[dict[str, Any]],
    results: dict[str, dict[str, Any]],
    code: str,
) -> str:
    """The whole page."""
    cases = [row for row in rows if row.is_case]
    second = [row for row in rows if row.measurement.second]
    parts = [
        _opening(cases, summarize([row.score for row in cases]), summarize([row.score for row in second])),
        "## Scoreboard\n\n" + _scoreboard([row for row in rows if not row.measurement.second]),
        "![Predicted against measured volumes](images/validation_parity.png)\n\n"
        "![Deviation of each prediction in SD](images/validation_deviations.png)",
        "By-products of the same runs, not counted as cases:\n\n" + _scoreboard(second),
        "## By state of tissue\n\n" + _by_state(cases),
        "## Misses\n\n" + _misses(cases, experiments),
        "## What is missing, and what was tried\n\n" + MISSING,
        "## What was calibrated\n\n" + _calibration(calibration),
        "## Assumptions and what they do\n\n" + _assumptions(rows, experiments, results),
        "## What another criterion would say\n\n" + _criteria(rows),
        "## Provenance\n\n" + _provenance(results, code),
    ]
    return "\n\n".join(parts) + "\n"


def _opening(rows: Sequence[Row], cases: Summary, second: Summary) -> str:
    names = {row.experiment.id for row in rows}
    missed = {row.experiment.id for row in rows if not row.score.passes}
    return f"""# Validation

Published experiments, predicted. Written by `make validation`, never by hand; the experiments are data in
`tests/validation/experiments.yaml`, each a config that anyone can run:
`thermosim simulate experiment=validation/e03_cooled_3cm_ex_vivo_bovine`.

**{cases.n_passed} of {cases.n} predictions ({100 * cases.share:.0f} %) lie within {PASSES_WITHIN:g} SD
of the published mean.** Mean absolute error {100 * cases.mean_absolute_relative_error:.0f} %, mean deviation
{cases.mean_deviation:+.2f} SD, root mean square {cases.rms_deviation:.1f} SD.
{len(names - missed)} of {len(names)} experiments are met in all that was measured. Of the by-products
(energy, diameters) {second.n_passed} of {second.n} are met.{_without(rows)}

One fixed set of tissue parameters stands for each state of tissue (`configs/tissue/`), one criterion of
visible coagulation for all (`configs/damage/coagulation.yaml`). Settings that a paper does not give are
assumed, listed [below](#assumptions-and-what-they-do), and varied. Experiments themselves scatter by
16 to 41 % (SD) in volume. Cells are coarse for speed; what finer ones change stands with E1 and E13.

*: no SD was published; {100 * DEFAULT_RELATIVE_SD:.0f} % of the mean is taken. †: the source says it in
words or without SD; the scale is ours."""


def _without(rows: Sequence[Row]) -> str:
    """The share without experiments whose device does what thermosim cannot."""
    lacking = {row.experiment.id: row.experiment.lacks for row in rows if row.experiment.lacks}
    if not lacking:
        return ""
    rest = summarize([row.score for row in rows if row.experiment.id not in lacking])
    named = "; ".join(f"{name}: {lacks}" for name, lacks in lacking.items())
    return (
        f"\n\nWithout the experiments whose device does what thermosim does not model ({named}) "
        f"{rest.n_passed} of\n{rest.n} predictions ({100 * rest.share:.0f} %) are met."
    )


def _scoreboard(rows: Sequence[Row]) -> str:
    head = ("case", "experiment", "tissue", "quantity", "measured", "predicted", "error", "SD", "")
    lines = []
    for row in rows:
        lines.append(
            (
                row.experiment.id,
                row.experiment.title,
                STATES[row.experiment.tissue],
                what(row),
                measured(row),
                number(row.score.predicted),
                f"{100 * row.score.relative_error:+.0f} %",
                f"{row.score.deviation:+.1f}",
                verdict(row),
            )
        )
    return table(head, lines)


def _by_state(cases: Sequence[Row]) -> str:
    lines = []
    for state, words in STATES.items():
        total = summarize([row.score for row in cases if row.experiment.tissue == state])
        if total.n:
            error = f"{100 * total.mean_absolute_relative_error:.0f} %"
            lines.append((words, f"{total.n_passed} of {total.n}", error, f"{total.mean_deviation:+.1f}"))
    return table(("tissue", "met", "mean absolute error", "mean deviation, SD"), lines)


def _misses(cases: Sequence[Row], experiments: Sequence[Experiment]) -> str:
    missed = dict.fromkeys(row.experiment.id for row in cases if not row.score.passes)
    if not missed:
        return "None."
    by_id = {experiment.id: experiment for experiment in experiments}
    entries = []
    for name in missed:
        experiment = by_id[name]
        off = ", ".join(
            f"{what(row)} {row.score.deviation:+.1f} SD"
            for row in cases
            if row.experiment.id == name and not row.score.passes
        )
        why = experiment.discussion or "Not explained yet."
        entries.append(f"**{name}, {experiment.title}** ({off}). {why}")
    return "\n\n".join(entries)


def _calibration(calibration: Sequence[dict[str, Any]]) -> str:
    keys = ("parameter", "meaning", "observation", "before", "after", "effect")
    lines = [tuple(str(one[key]) for key in keys) for one in calibration]
    head = ("parameter", "meaning", "set by", "before", "after", "effect")
    return "Everything else stands as its source gives it.\n\n" + table(head, lines)


def _assumptions(
    rows: Sequence[Row], experiments: Sequence[Experiment], results: dict[str, dict[str, Any]]
) -> str:
    parts = []
    for experiment in experiments:
        text = f"**{experiment.id}, {experiment.title}.** {experiment.source}."
        text += "".join(f"\n- {sentence}" for sentence in experiment.assumptions)
        if experiment.variants:
            text += "\n\n" + _variants(
                [row for row in rows if row.experiment is experiment], experiment, results
            )
        parts.append(text)
    return "\n\n".join(parts)


def _variants(rows: Sequence[Row], experiment: Experiment, results: dict[str, dict[str, Any]]) -> str:
    from validation.document import answer_of
    from validation.observe import value

    lines = []
    for variant in experiment.variants:
        stored = results.get(f"{experiment.id} {experiment.varied(variant).name}")
        if stored is None:
            lines.append((variant.name, "not run", "", "", ""))
            continue
        for row in rows:
            one = row.measurement
            if one.run != variant.run or one.relative_to is not None:
                continue
            then = value(stored["observed"], one.quantity, answer_of(experiment, one, variant.run))
            unit, moved = QUANTITIES[one.quantity][1], (then - one.mean) / one.scale
            lines.append(
                (
                    variant.name,
                    what(row),
                    f"{number(row.score.predicted)} {unit}",
                    f"{number(then)} {unit}",
                    f"{row.score.deviation:+.1f} → {moved:+.1f}",
                )
            )
    return table(("changed", "quantity", "as assumed", "then", "deviation, SD"), lines)


def _criteria(rows: Sequence[Row]) -> str:
    head = ("case", "measured, mL", "coagulation", *(name.replace("_", " ") for name in OTHER_CRITERIA))
    lines = []
    for row in rows:
        if row.measurement.quantity != "zone_volume_ml" or row.measurement.relative_to is not None:
            continue
        zones = row.observed["zones"]
        name = (
            row.experiment.id
            if row.measurement.run == "main"
            else f"{row.experiment.id}, {row.measurement.run}"
        )
        lines.append(
            (
                name,
                number(row.measurement.mean),
                number(row.score.predicted),
                *(number(zones[other]["volume_ml"]) for other in OTHER_CRITERIA),
            )
        )
    return "Volume in mL by the highest temperature and by 240 equivalent minutes at 43 °C.\n\n" + table(
        head, lines
    )


def _provenance(results: dict[str, dict[str, Any]], code: str) -> str:
    observed = [stored["observed"] for stored in results.values()]
    codes = sorted({stored["code"] for stored in results.values()})
    warning = ""
    if codes != [code]:
        warning = f"\n\n**Some results are of other code ({', '.join(codes)}); run it again.**"
    seconds = sum(one["seconds"] for one in observed)
    spacings = ", ".join(f"{s:g}" for s in sorted({round(one["spacing_mm"], 3) for one in observed}))
    worst = max(abs(one["audit_error"]) for one in observed)
    devices = ", ".join(sorted({one["device"] for one in observed}))
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    kernels = observed[0]["kernel_digest"][:12]
    return (
        f"thermosim {thermosim.__version__}, code {code}, kernels {kernels}, {day}. {len(observed)} runs,\n"
        f"{seconds / 60:.0f} min of computing on one thread each ({devices}), cells of {spacings} mm.\n"
        f"Worst energy balance {worst:.1e}.{warning}"
    )
