"""The CUDA path from set-up to outcome, as NVRTC compiles it, against the CPU backend.

Without a GPU the kernels run in the PTX interpreter of `tests/ptx`, which checks every access, and CuPy is
its stand-in; `make gpu-test` runs the same tests on a GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_path import GpuPath
from ptx import Checks, Kernel, Statistics, mark_initialised, mark_uninitialised
from verification.gpu_case import small_case

import thermosim
from thermosim.backends.base import kernel_signatures
from thermosim.backends.cpu import CpuBackend
from thermosim.simulation import run
from thermosim.simulation_result import SimulationResult

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = pytest.mark.gpu

TOLERANCE = 2e-5
"""Largest difference over the largest value of a field. Both devices do the same float32 arithmetic in the
same order but for sums over a row and contracted multiply-adds, some 1e-7 of a value each; up to a hundred
steps and boiling let that grow to 2e-6 here, and a GPU's own division by approximation is not used."""

FIELDS = (
    "temperature",
    "highest_temperature",
    "damage_integral",
    "thermal_dose",
    "dead_fraction",
    "electric_potential",
    "volumetric_heat_source",
)


def assert_same(cpu: SimulationResult, gpu: SimulationResult) -> None:
    assert (cpu.run.backend, gpu.run.backend) == ("cpu", "cuda")
    assert cpu.run.time_steps == gpu.run.time_steps
    for name in FIELDS:
        expected, found = getattr(cpu, name), getattr(gpu, name)
        assert np.abs(found - expected).max() < TOLERANCE * np.abs(expected).max(), name
    assert gpu.final_impedance == pytest.approx(cpu.final_impedance, rel=TOLERANCE)
    assert gpu.audit.relative_error < 1e-3


class CheckedLaunches:
    """The first launches of every kernel with all checks on: races, and reads of what nobody wrote.

    What a kernel only writes counts as never written when it begins.
    """

    def __init__(self, each: int) -> None:
        self.each, self.done = each, Counter[str]()
        self.signatures = kernel_signatures()

    def __call__(
        self, kernel: Kernel, grid: Any, block: Any, arguments: Sequence[Any], checks: Checks
    ) -> Statistics:
        if self.done[kernel.name] == self.each:
            return kernel(grid, block, arguments, checks=checks)
        self.done[kernel.name] += 1
        outputs = self._written_only(kernel.name, arguments)
        for array in outputs:
            mark_uninitialised(array)
        try:
            return kernel(grid, block, arguments, checks=Checks(races=True, initialised=True))
        finally:
            for array in outputs:
                mark_initialised(array)

    def _written_only(self, name: str, arguments: Sequence[Any]) -> list[Any]:
        from launches import accesses  # type: ignore[import-not-found]

        signature = self.signatures[name]
        kinds = accesses(signature.source, name)
        given = arguments[6:] if signature.has_grid else arguments
        pointers = [
            (kinds[parameter], value)
            for (_, parameter), value in zip(signature.parameters, given, strict=True)
            if isinstance(value, np.ndarray)
        ]
        read = {value.ctypes.data for access, value in pointers if access.reads}
        return [v for access, v in pointers if not access.reads and v.ctypes.data not in read]


def test_a_treatment_agrees_and_runs_every_kernel(gpu_path: GpuPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cooled needles taking turns beside a vessel, boiling tissue, perfusion that stops."""
    checked = CheckedLaunches(2)
    if gpu_path.watch is not None:
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        monkeypatch.setattr(gpu_path.watch, "launch", checked)
    gpu_path.launches.clear()
    waits = 0 if gpu_path.watch is None else gpu_path.watch.waits
    gpu = run(small_case(), gpu_path.backend)
    assert set(gpu_path.launches) == set(kernel_signatures())  # every kernel of kernels/*.cu
    if gpu_path.watch is not None:
        assert set(checked.done) == set(kernel_signatures())
        assert gpu_path.watch.replays > gpu.run.potential_iterations  # V-cycles and steps as CUDA graphs
        # the host waits three times a step, three times an iteration, and to read what a solve found
        few = 4 * gpu.run.time_steps + 4 * gpu.run.potential_iterations + 12 * gpu.run.potential_solves + 40
        assert gpu_path.watch.waits - waits < few
    processor = CpuBackend(1)
    processor.prefers_whole_rows = False  # the same window on both
    cpu = run(small_case(), processor)
    assert cpu.highest_temperature.max() > 99.0  # boiling is part of the case
    assert_same(cpu, gpu)


def test_a_case_from_the_configuration_agrees_to_its_outcome(gpu_path: GpuPath) -> None:
    """A multitined needle held at a temperature, blood that warms along its way, death by viability."""
    words = [
        "grid.spacing_mm=4",
        "applicators=starburst_9_40mm",
        "layout=single_centered",
        "protocol=temperature_controlled",
        "protocol.generator.hold_time=4",
        "protocol.segments.0.duration_min=0.1",
        "protocol.cooling_after_min=0",
        "damage.perfusion_shutdown=viability",
        "vessels=advective",
    ]
    cpu, gpu = (
        thermosim.simulate(thermosim.load_case("quick", [*words, f"backend={backend}"]))
        for backend in ("cpu", "cuda")
    )
    assert_same(cpu.simulation, gpu.simulation)
    for name, zone in cpu.outcome.zones.items():
        assert gpu.outcome.zones[name].volume == pytest.approx(zone.volume, rel=1e-3)
    expected, found = cpu.outcome.tumors[0].all_around, gpu.outcome.tumors[0].all_around
    assert found.minimum == pytest.approx(expected.minimum, abs=1e-6)  # [m]
