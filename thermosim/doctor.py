"""What works on this machine, and what a grid costs: the lines of `thermosim doctor`."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from thermosim import __version__, checks
from thermosim.errors import ThermosimError
from thermosim.resources import config_directory, kernel_directory

if TYPE_CHECKING:
    from thermosim.build import Case

PACKAGES = ("numpy", "scipy", "h5py", "hydra-core", "nibabel", "SimpleITK", "pyvista", "vtk")


def examine(case: Case) -> Iterator[str]:
    """Lines that say which backends work, how much memory the case's grid takes, and what is missing."""
    system = f"{platform.system()} {platform.machine()}"
    yield f"thermosim {__version__} on Python {platform.python_version()}, {system}"
    yield from _packages()
    yield f"configs: {config_directory()}"
    yield f"kernels: {kernel_directory()}"
    yield ""
    yield from _backends()
    yield ""
    yield from _memory(case)
    yield from _pictures()


def _packages() -> Iterator[str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} missing")
    yield ", ".join(found)


def _backends() -> Iterator[str]:
    from thermosim.backends import probe

    works = {}
    for row in probe():
        works[str(row["name"])] = bool(row["works"])
        state = "works" if row["works"] else "does not work"
        yield f"backend {row['name']}: {state}: {row['detail']}"
    if not works.get("cpu", False):
        yield "  the processor needs a C++ compiler: install g++ or clang++, or set CXX to one"
    if not works.get("cuda", False):
        for what, problem in _cuda_needs():
            yield f"  for cuda: {what}: {'found' if problem is None else f'missing: {problem}'}"


def _cuda_needs() -> Iterator[tuple[str, str | None]]:
    """What a run on a GPU needs, and what is wrong with it; None: it is there."""
    driver = None
    if shutil.which("nvidia-smi") is None:
        driver = (
            "nvidia-smi is not on the PATH; the machine needs an NVIDIA GPU, and the driver from nvidia.com"
        )
    yield "NVIDIA GPU and driver", driver
    cupy = None
    if importlib.util.find_spec("cupy") is None:
        cupy = "pip install 'thermosim[cuda13]' for driver 580 or newer, else 'thermosim[cuda12]'"
    yield "CuPy", cupy
    if driver is None and cupy is None:
        yield (
            "both together",
            "they are here and do not work together; install the extra that fits the driver",
        )
    sanitizer = None
    if shutil.which("compute-sanitizer") is None:
        sanitizer = "not on the PATH (CUDA toolkit); only `make gpu-test` would use it"
    yield "compute-sanitizer", sanitizer


def _memory(case: Case) -> Iterator[str]:
    from thermosim.build import lay_out_box
    from thermosim.simulation import estimate_memory

    try:
        shape, n_electrodes = lay_out_box(case)
    except ThermosimError as error:
        yield f"grid of this case: not known: {error}"
        return
    needed = estimate_memory(shape, n_electrodes)
    limit = case.config.solver.memory_limit_gb
    free = limit * checks.GIGABYTE if limit is not None else checks.free_memory()
    cells = f"{shape[0]} x {shape[1]} x {shape[2]} cells of {case.config.grid.spacing_mm:g} mm"
    verdict = ""
    if free is not None:
        fits = (
            "it fits" if needed <= free else "it does NOT fit: raise grid.spacing_mm or shrink grid.size_mm"
        )
        verdict = f", {free / checks.GIGABYTE:.3g} GB are free: {fits}"
    memory = f"about {needed / checks.GIGABYTE:.3g} GB{verdict}"
    yield f"grid of this case: {cells}, {n_electrodes} electrodes: {memory}"


def _pictures() -> Iterator[str]:
    """Whether scene.png can be drawn, tried in a process of its own: VTK may end the one it runs in."""
    import subprocess

    script = (
        "import pyvista as pv; p = pv.Plotter(off_screen=True, window_size=(32, 32)); "
        "p.add_mesh(pv.Sphere()); p.screenshot(None, return_img=True); p.close()"
    )
    try:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120, check=False)
        works = done.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        works = False
    if works:
        yield "pictures: scene.png can be drawn here"
    else:
        yield "pictures: no scene.png here, VTK finds no OpenGL (install libegl1); all else is written"
