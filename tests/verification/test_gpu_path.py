"""The CUDA path, compiled by NVRTC and executed as PTX by an interpreter, against the CPU backend.

The interpreter checks every access and argument; it stands beside the checkout or the test says so.
It replaces the module `cupy`, so the run happens in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

INTERPRETER = Path(__file__).resolve().parents[3] / "shared" / "tools" / "ptxrun"

PROGRAM = """
import json, sys
sys.path[:0] = sys.argv[1:3]
import fakecupy
fakecupy.install()
import numpy as np
from gpu_case import small_case
from thermosim.backends.cpu import CpuBackend
from thermosim.backends.cuda import CudaBackend
from thermosim.simulation import run
cpu, gpu = run(small_case(), CpuBackend(1)), run(small_case(), CudaBackend(0))
fields = ("temperature", "highest_temperature", "damage_integral", "thermal_dose", "dead_fraction",
          "electric_potential", "volumetric_heat_source")
worst = {}
for name in fields:
    a, b = getattr(cpu, name), getattr(gpu, name)
    worst[name] = float(np.abs(a - b).max() / np.abs(a).max())
worst["impedance"] = abs(cpu.final_impedance / gpu.final_impedance - 1)
print(json.dumps({"worst": worst, "hottest": float(cpu.highest_temperature.max()),
                  "audit": gpu.audit.relative_error, "backend": gpu.run.backend}))
"""


def test_whole_gpu_path_agrees_with_the_cpu() -> None:
    if not INTERPRETER.is_dir():
        pytest.skip(f"no PTX interpreter beside this checkout ({INTERPRETER})")
    pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC is not installed (extra 'test')")
    here = str(Path(__file__).resolve().parent)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(INTERPRETER), here],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["backend"] == "cuda"
    assert result["hottest"] > 99.0  # boiling is part of the case
    assert result["audit"] < 1e-3
    # float32 with the same arithmetic: only contracted multiply-adds differ between compilers; a few
    # hundred steps let a relative 1e-7 grow, boiling lets it grow most
    for name, error in result["worst"].items():
        assert error < 2e-4, (name, error)
