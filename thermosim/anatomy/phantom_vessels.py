"""The venous trees of the phantom: main branches as drawn by anatomists, bent around tumours, then grown."""

from __future__ import annotations

import numpy as np

from thermosim.anatomy.phantom_shapes import LiverShape, TumorShape
from thermosim.anatomy.vessel_growth import Branch, GrowingTree, bend_around, grow, resampled, smooth_line
from thermosim.anatomy.vessel_tree import Points, VesselTree
from thermosim.config import PhantomAnatomyConfig
from thermosim.errors import InputError
from thermosim.units import MILLIMETRE

_VESSEL_CLEARANCE = 2.3 * MILLIMETRE  # wall to tumour; 2 mm is promised
_ATTEMPTS = 24

BranchTable = tuple[tuple[str, str | None, tuple[tuple[float, ...], ...]], ...]
# Main branches in the liver outline's frame [mm]: name, origin, control points after the origin's end.
_PORTAL: BranchTable = (
    ("trunk", None, ((42, 30, -70), (24, 22, -42), (6, 12, -14), (-6, 8, -3))),
    ("right", "trunk", ((-15, 8, -1), (-25, 9, 0))),
    ("left", "trunk", ((6, 2, 5), (20, -10, 12))),
    ("left lateral", "left", ((42, -18, 15), (72, -23, 17))),
    ("left medial", "left", ((16, -28, 14), (8, -44, 11))),
    ("anterior", "right", ((-34, -2, 4), (-42, -10, 6))),
    ("anterior superior", "anterior", ((-47, -20, 22), (-50, -26, 40))),
    ("anterior inferior", "anterior", ((-52, -18, -10), (-58, -22, -38))),
    ("posterior", "right", ((-38, 20, -4), (-50, 30, -6))),
    ("posterior superior", "posterior", ((-62, 36, 6), (-72, 36, 20))),
    ("posterior inferior", "posterior", ((-64, 26, -22), (-74, 16, -44))),
)
_HEPATIC: BranchTable = (
    (
        "right",
        None,
        ((-2, 33, 47), (-16, 32, 45), (-40, 24, 34), (-62, 10, 14), (-76, 0, -10), (-78, -6, -32)),
    ),
    ("middle", None, ((-2, 32, 51), (-14, 16, 42), (-21, -6, 25), (-24, -24, 2), (-30, -32, -22))),
    ("left", None, ((-2, 32, 52), (0, 18, 46), (13, 3, 38), (31, -6, 33), (52, -14, 31), (72, -20, 30))),
)
_HEPATIC_SHARES = (0.42, 0.33, 0.25)  # terminals of the right, middle and left vein


def main_vessels(liver: LiverShape, config: PhantomAnatomyConfig) -> tuple[Points, Points]:
    """Points on the undisturbed main branches and about their radii."""
    points, radii = [], []
    for table, diameter in (
        (_PORTAL, config.portal_trunk_diameter_mm),
        (_HEPATIC, config.hepatic_vein_diameter_mm),
    ):
        for name, share in _shares_of_tips(table).items():
            control = next(c for n, _, c in table if n == name)
            line = smooth_line(liver.placed(control), 3 * MILLIMETRE)
            points.append(line)
            width = 0.5 * diameter * MILLIMETRE * share ** (1 / config.murray_exponent)
            radii.append(np.full(len(line), width))
    return np.vstack(points), np.concatenate(radii)


def _shares_of_tips(table: BranchTable) -> dict[str, float]:
    """Share of its root's tips that lie beyond each main branch."""
    origins = {name: origin for name, origin, _ in table}
    counts = dict.fromkeys(origins, 0.0)
    for tip in sorted(set(origins) - set(origins.values())):
        branch: str | None = tip
        while branch is not None:
            counts[branch] += 1
            branch = origins[branch]
    total = max(counts.values())
    return {name: count / total for name, count in counts.items()}


class PhantomVessels:
    """Grows the portal and hepatic venous trees of one phantom.

    Parameters
    ----------
    liver, vena_cava, tumors : what the vessels must stay in, join and avoid.
    config : diameters, number of terminals, Murray's exponent and seed.
    """

    def __init__(
        self,
        liver: LiverShape,
        vena_cava: VesselTree,
        tumors: tuple[TumorShape, ...],
        config: PhantomAnatomyConfig,
    ) -> None:
        self.liver, self.vena_cava, self.tumors, self.config = liver, vena_cava, tumors, config

    def _terminal_weights(
        self, random: np.random.Generator, radius: float, counts: list[int]
    ) -> list[Points]:
        """Flow of each terminal, as many as are not thinner than the least branch."""
        weights = [random.uniform(0.7, 1.4, size=n) for n in counts]
        thinnest = 0.5 * self.config.minimum_branch_diameter_mm * MILLIMETRE
        most = (radius / thinnest) ** self.config.murray_exponent
        while weights[0].sum() / min(float(w.min()) for w in weights) > most:
            keep = [max(6 if len(counts) == 1 else 1, int(0.97 * len(w))) for w in weights]
            if keep == [len(w) for w in weights]:
                raise InputError(
                    f"phantom: minimum_branch_diameter_mm {2e3 * thinnest:g} mm leaves a vein of "
                    f"{2e3 * radius:g} mm no room for its main branches; lower it"
                )
            weights = [w[:k] for w, k in zip(weights, keep, strict=True)]
        return weights

    def _branches(self, table: BranchTable, radii: list[float], random: np.random.Generator) -> list[Branch]:
        """Main branches with a seeded wobble, bent around the tumours."""
        lines: dict[str, Points] = {}
        for name, origin, control in table:
            points = self.liver.placed(control)
            wobble = random.normal(scale=1.5 * MILLIMETRE, size=points.shape)
            wobble[: 3 if name == "trunk" else 1 if origin is None else 0] = 0
            points = points + wobble
            if origin is not None:
                points = np.vstack([lines[origin][-1:], points])
            lines[name] = smooth_line(points, 0.5 * MILLIMETRE)
        shares = _shares_of_tips(table)
        roots = {name: i for i, name in enumerate(n for n, origin, _ in table if origin is None)}
        widths = {
            name: radii[roots.get(name, 0)] * shares[name] ** (1 / self.config.murray_exponent)
            for name in lines
        }
        for tumor in self.tumors:
            bend_around(
                lines, widths, tumor.center, tumor.outer_radius + _VESSEL_CLEARANCE + 0.5 * MILLIMETRE
            )
        group = "hepatic_vein" if table is _HEPATIC else "portal_vein"
        for name in sorted(set(lines) - {origin for _, origin, _ in table}):
            # an outer branch that a large tumour has pushed against the capsule ends before it gets there
            tight = np.flatnonzero(self._room(group, lines[name], True) < 1.1 * widths[name])
            if len(tight) and tight[0] > 24:
                lines[name] = lines[name][: tight[0] - 6]
        return [
            Branch(name, origin, resampled(lines[name], 5 * MILLIMETRE), roots.get(name, 0))
            for name, origin, _ in table
        ]

    def _room(self, group: str, points: Points, main: bool) -> Points:
        """Largest radius at points (..., 3) that keeps clear of capsule, tumours and gallbladder [m]."""
        inside = -self.liver.at(points) - 0.8 * MILLIMETRE
        cava = self.vena_cava.signed_distance(points)[0] if main else None
        if cava is not None and group == "hepatic_vein":
            inside = np.where(cava < 10 * MILLIMETRE, np.inf, inside)
        elif cava is not None:
            outside = self.liver.gallbladder(points[..., 0], points[..., 1], points[..., 2])
            outside = np.minimum(outside, cava) - 1.2 * MILLIMETRE
            at_hilum = points[..., 2] < self.liver.placed([0, 0, 4])[2]
            at_hilum &= points[..., 0] > self.liver.placed([-16, 0, 0])[0]
            inside = np.where(at_hilum, outside, inside)
        for tumor in self.tumors:
            inside = np.minimum(inside, tumor.clearance(points) - _VESSEL_CLEARANCE)
        return np.asarray(inside)

    def _places(self, random: np.random.Generator) -> Points:
        """Where terminals may end: random points in the liver, off the capsule and the tumours."""
        lower, upper = self.liver.box()
        points = random.uniform(lower, upper, size=(24_000, 3))
        points = points[self.liver.at(points) < -5 * MILLIMETRE]
        for tumor in self.tumors:
            points = points[tumor.clearance(points) > 5 * MILLIMETRE]
        return points

    def grown(self) -> tuple[VesselTree, VesselTree, tuple[str, ...]]:
        """Portal tree, hepatic tree and notes on what differs from what was asked for.

        Raises
        ------
        InputError
            If no attempt finds a way for all branches.
        """
        config, notes = self.config, []
        portal_radius = 0.5 * config.portal_trunk_diameter_mm * MILLIMETRE
        hepatic_radius = 0.5 * config.hepatic_vein_diameter_mm * MILLIMETRE
        for attempt in range(_ATTEMPTS):
            random = np.random.default_rng([config.seed, 300 + attempt])
            portal_weights = self._terminal_weights(random, portal_radius, [config.n_terminals])
            shares = [max(1, round(share * config.n_terminals)) for share in _HEPATIC_SHARES]
            hepatic_weights = self._terminal_weights(random, hepatic_radius, shares)
            flows = np.array([w.sum() for w in hepatic_weights])
            hepatic_radii = hepatic_radius * (flows / flows.max()) ** (1 / config.murray_exponent)
            portal = GrowingTree(
                "portal_vein",
                self._branches(_PORTAL, [portal_radius], random),
                [portal_radius],
                portal_weights,
                config.murray_exponent,
                lambda points, main: self._room("portal_vein", points, main),
            )
            hepatic = GrowingTree(
                "hepatic_vein",
                self._branches(_HEPATIC, list(hepatic_radii), random),
                list(hepatic_radii),
                hepatic_weights,
                config.murray_exponent,
                lambda points, main: self._room("hepatic_vein", points, main),
            )
            if grow(portal, hepatic, self._places(random), random):
                for name, weights in (("portal vein", portal_weights), ("hepatic veins", hepatic_weights)):
                    count = sum(map(len, weights))
                    if count < 0.95 * config.n_terminals:
                        notes.append(
                            f"the phantom's {name} end in {count} instead of {config.n_terminals} branches: "
                            f"more would be thinner than {config.minimum_branch_diameter_mm:g} mm"
                        )
                return portal.finished(), hepatic.finished(), tuple(notes)
        raise InputError(
            f"phantom: no way for {config.n_terminals} branches per venous tree in "
            f"{config.liver_volume_ml:g} mL of liver beside {len(self.tumors)} tumours in {_ATTEMPTS} "
            "attempts; lower n_terminals or the vessels' diameters, or move or shrink the tumours"
        )
