"""Many small cases side by side."""

from __future__ import annotations

import time
from typing import Any

from measure import Quantity, Report, Setting
from problems import BOX_MM, perturbed_cases

from thermosim.batch import n_workers, run_batch
from thermosim.build import Anatomies, load_case, simulate
from thermosim.commands.study import figures

CASES = 24
"""Perturbed cases that are measured; a thousand are scaled up from them."""

WANTED = 1000


def batch(setting: Setting) -> Report:
    """Perturbed cases (needles, perfusion, conductivities) of the demo at twice its spacing, side by side."""
    spacing = 2.0 * BOX_MM / setting.size
    words = [f"grid.spacing_mm={spacing}", f"backend={setting.backend.name}", "output.progress=false"]
    plan = load_case("demo", [*words, "backend.threads=1"])
    anatomies = Anatomies()
    workers = n_workers(plan, 0 if setting.backend.name == "cuda" else setting.threads)
    begun = time.perf_counter()
    ends: list[float] = []
    volumes: list[float] = []
    refused = 0
    for one in run_batch(
        perturbed_cases(plan, CASES, anatomies),
        keep=figures,
        workers=workers,
        criteria=(),
        anatomies=anatomies,
    ):
        ends.append(time.perf_counter() - begun)
        if one.kept is None:
            refused += 1
        else:
            volumes.append(one.kept["zone_volume_ml"])
    # until each worker has finished its first case everything starts up
    started, left = ends[workers - 1], len(ends) - workers
    each = (ends[-1] - started) / left
    alone: list[float] = []
    single: Any = load_case("demo", [*words, f"backend.threads={setting.threads}"])
    for _ in range(1 + setting.repeats):
        begun = time.perf_counter()
        simulate(single)
        alone.append(time.perf_counter() - begun)
    return Report(
        [
            Quantity("1,000 cases, scaled up", "s", [started + each * (WANTED - workers)]),
            Quantity("  a case among many", "s", [each]),
            Quantity("  start of the workers and first cases", "s", [started]),
            Quantity("  a case by itself, on all threads", "s", alone[1:]),
        ],
        {
            "cases": len(ends),
            "workers": workers,
            "refused": refused,
            "zone_volumes_ml": volumes,
            "scaled_up": True,
        },
    )
