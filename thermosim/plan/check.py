"""All rules on one plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from thermosim.anatomy.anatomy import Anatomy, TriangleSurface
from thermosim.config import TissueConfig
from thermosim.errors import InputError
from thermosim.outcome.margin import tumor_margin
from thermosim.outcome.results import TumorMargin
from thermosim.outcome.surface import extract_surface
from thermosim.plan.anatomy_rules import anatomy_rules
from thermosim.plan.findings import RuleResult, Verdict, worst
from thermosim.plan.needle_rules import needle_rules
from thermosim.plan.paths import Plan
from thermosim.plan.tumor_rules import coverage_rules, reach_rule
from thermosim.plan.zone_estimate import estimate, estimate_grid, on_grid

NOT_SIMULATED = "not asked for; check.simulate=quick or full does it"


@dataclass(frozen=True)
class PlanCheck:
    """What the rules say of a plan.

    `tumors`, `zone_surface`, `anatomy`: margins by the fast estimate, its zone, and the grid it lies on; None
    where there is no tumour. `notes`: what a reader must know beside the verdict.
    """

    plan: Plan
    results: tuple[RuleResult, ...]
    tumors: tuple[TumorMargin, ...]
    zone_surface: TriangleSurface | None
    anatomy: Anatomy | None
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """The gravest of all rules; where nothing fails or warns, what could not be judged may warn."""
        found = worst(result.verdict for result in self.results)
        lacks = any(result.lacks for result in self.results)
        if found in ("pass", "not judged") and lacks and self.plan.rules.not_judged == "warn":
            return "warn"
        return found

    @property
    def counts(self) -> dict[str, int]:
        """How many rules pass, warn, fail, or could not be judged."""
        counted = Counter(result.verdict for result in self.results)
        return {verdict: counted[verdict] for verdict in ("pass", "warn", "fail", "not judged")}

    def without_simulation(self, reason: str) -> PlanCheck:
        """The same, saying why the simulated zone is not judged."""
        return self._replaced(coverage_rules(self.plan, "simulated", [], reason))

    def with_simulation(self, tumors: Sequence[TumorMargin], notes: Sequence[str]) -> PlanCheck:
        """The same with the rules about the simulated zone judged."""
        judged = coverage_rules(self.plan, "simulated", tumors, "no tumour was simulated")
        return replace(self._replaced(judged), notes=tuple(dict.fromkeys((*self.notes, *notes))))

    def _replaced(self, judged: Sequence[RuleResult]) -> PlanCheck:
        new = {result.key: result for result in judged}
        return replace(self, results=tuple(new.get(result.key, result) for result in self.results))


def check_plan(
    plan: Plan,
    surfaces: Mapping[str, TriangleSurface],
    tissue: TissueConfig,
    spacing: float,
    minimum_vessel_diameter: float,
) -> PlanCheck:
    """Judge a plan by geometry and the fast estimate.

    Parameters
    ----------
    surfaces : of the whole anatomy, by structure name [m, LPS].
    tissue : whose perfusion shapes the estimate. spacing : of the estimate's grid [m].
    minimum_vessel_diameter : thinner vessels count as tissue in the estimate's picture [m].

    Raises
    ------
    InputError : limits that contradict each other.
    """
    if plan.rules.not_judged not in ("ignore", "warn"):
        raise InputError(f"rules.not_judged={plan.rules.not_judged!r} is not known; use ignore or warn")
    results = [*needle_rules(plan), *anatomy_rules(plan), reach_rule(plan, surfaces)]
    notes = list(plan.source.notes)
    tumors: list[TumorMargin] = []
    zone_surface = anatomy = None
    names = [body.structure.name for body in plan.with_role("tumor")]
    if names:
        metal = [line for place in plan.places for line in place.lines]
        grid = estimate_grid([*metal, *(surfaces[name].points for name in names)], spacing)
        anatomy = plan.source.rasterize(grid, minimum_vessel_diameter)
        zone = on_grid(estimate(plan, tissue), grid)
        zone_surface = extract_surface(zone)
        tumors = [tumor_margin(anatomy, name, zone, zone_surface) for name in anatomy.tumor_surfaces]
        notes += [note for note in anatomy.notes if "computing box" not in note]
        short = [place.name for place in plan.places if plan.minutes(place) < plan.rules.zone.time_min]
        if short:
            notes.append(
                f"the fast estimate shrinks the zone of {len(short)} burn(s) shorter than "
                f"{plan.rules.zone.time_min:g} min by the square root of their time"
            )
    results += coverage_rules(plan, "estimated", tumors)
    results += coverage_rules(plan, "simulated", [], NOT_SIMULATED)
    return PlanCheck(plan, tuple(results), tuple(tumors), zone_surface, anatomy, tuple(dict.fromkeys(notes)))
