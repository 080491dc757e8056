"""One potential by other solvers: the very matrix thermosim solves, in double precision, from zero.

Each peer gets the assembled matrix for nothing; its set-up (hierarchies, preconditioners) counts as
thermosim's does. The residual is computed anew in double precision, whatever the peer says of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import PeakGrowth
from numpy.typing import NDArray
from scipy import sparse

from peers import REMEDY, version

Vector = NDArray[np.float64]
Matrix = Any  # scipy.sparse.csr_array


def assemble(arrays: dict[str, NDArray[np.float32]]) -> tuple[Matrix, Vector, NDArray[np.int64]]:
    """A and b over the cells that have links, and which cells those are.

    (A φ)_p = Σ g (φ_p − φ_q) + leak_p φ_p: `gx`, `gy`, `gz` link each cell to the next along its axis.
    """
    shape = arrays["b"].shape
    n = int(np.prod(shape))
    number = np.arange(n, dtype=np.int32).reshape(shape)
    diagonal = arrays["leak"].astype(float).ravel()
    rows, columns, values = [], [], []
    for axis, name in enumerate(("gx", "gy", "gz")):
        low = tuple(slice(0, -1) if a == axis else slice(None) for a in range(3))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        g = arrays[name][low].astype(float).ravel()
        linked = g != 0.0
        p, q, g = number[low].ravel()[linked], number[high].ravel()[linked], g[linked]
        diagonal += np.bincount(p, g, n) + np.bincount(q, g, n)
        rows += [p, q]
        columns += [q, p]
        values += [-g, -g]
    active = np.flatnonzero(diagonal > 0.0)
    place = np.full(n, -1, dtype=np.int32)
    place[active] = np.arange(len(active), dtype=np.int32)
    rows.append(number.ravel()[active])
    columns.append(number.ravel()[active])
    values.append(diagonal[active])
    row, column = place[np.concatenate(rows)], place[np.concatenate(columns)]
    size = (len(active), len(active))
    matrix = sparse.coo_array((np.concatenate(values), (row, column)), shape=size).tocsr()
    return matrix, arrays["b"].astype(float).ravel()[active], active


def true_residual(matrix: Matrix, b: Vector, x: Vector) -> float:
    """‖b − A x‖ / ‖b‖ in double precision."""
    return float(np.linalg.norm(b - matrix @ x) / np.linalg.norm(b))


Solution = tuple[Vector, int]
"""φ and the number of iterations."""


def scipy_cg(matrix: Matrix, b: Vector, tolerance: float) -> Solution:
    """Conjugate gradients with the diagonal as preconditioner."""
    from scipy.sparse.linalg import LinearOperator, cg

    inverse = 1.0 / matrix.diagonal()
    count = [0]

    def see(_x: Vector) -> None:
        count[0] += 1

    jacobi = LinearOperator(matrix.shape, matvec=lambda r: inverse * r)
    x, state = cg(matrix, b, rtol=tolerance, atol=0.0, maxiter=20_000, M=jacobi, callback=see)
    if state != 0:
        raise ArithmeticError(f"not converged after {count[0]} iterations")
    return x, count[0]


def pyamg_aggregation(matrix: Matrix, b: Vector, tolerance: float) -> Solution:
    """Smoothed aggregation, its V-cycle as preconditioner of CG."""
    import pyamg

    csr = sparse.csr_matrix(matrix)
    hierarchy = pyamg.smoothed_aggregation_solver(csr, strength=("symmetric", {"theta": 0.0}), max_coarse=500)
    residuals: list[float] = []
    x = hierarchy.solve(b, tol=tolerance, accel="cg", maxiter=200, residuals=residuals)
    return x, len(residuals) - 1


def pyamg_classical(matrix: Matrix, b: Vector, tolerance: float) -> Solution:
    """Ruge and Stüben's classical multigrid, its V-cycle as preconditioner of CG."""
    import pyamg

    hierarchy = pyamg.ruge_stuben_solver(sparse.csr_matrix(matrix), max_coarse=500)
    residuals: list[float] = []
    x = hierarchy.solve(b, tol=tolerance, accel="cg", maxiter=200, residuals=residuals)
    return x, len(residuals) - 1


def petsc_hypre(matrix: Matrix, b: Vector, tolerance: float) -> Solution:
    """BoomerAMG of hypre as preconditioner of PETSc's CG, tuned for three dimensions (HMIS, ext+i)."""
    from petsc4py import PETSc

    options = PETSc.Options()
    for key, value in {
        "strong_threshold": 0.5,
        "coarsen_type": "HMIS",
        "interp_type": "ext+i",
        "P_max": 4,
        "agg_nl": 1,
    }.items():
        options[f"pc_hypre_boomeramg_{key}"] = value
    size = matrix.shape
    A = PETSc.Mat().createAIJ(size=size, csr=(matrix.indptr, matrix.indices, matrix.data))
    solver = PETSc.KSP().create()
    solver.setOperators(A)
    solver.setType("cg")
    solver.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    solver.getPC().setType("hypre")
    solver.setTolerances(rtol=tolerance, atol=0.0, max_it=200)
    solver.setFromOptions()
    x = A.createVecRight()
    solver.solve(PETSc.Vec().createWithArray(b), x)
    return np.array(x.getArray()), int(solver.getIterationNumber())


def amgcl_include() -> Path | None:
    """Folder with AMGCL's headers: ``AMGCL_INCLUDE``, or an include folder of Python or the system."""
    import sys

    given = os.environ.get("AMGCL_INCLUDE")
    for folder in (given, f"{sys.prefix}/include", "/usr/include", "/usr/local/include"):
        if folder and (Path(folder) / "amgcl" / "amg.hpp").is_file():
            return Path(folder)
    return None


AMGCL = """
#define AMGCL_NO_BOOST
#include <cstddef>
#include <tuple>
#include <amgcl/backend/builtin.hpp>
#include <amgcl/adapter/crs_tuple.hpp>
#include <amgcl/make_solver.hpp>
#include <amgcl/amg.hpp>
#include <amgcl/coarsening/smoothed_aggregation.hpp>
#include <amgcl/relaxation/spai0.hpp>
#include <amgcl/solver/cg.hpp>
#include <amgcl/util.hpp>
// hierarchy in float, iterations in double: AMGCL's own advice for speed
typedef amgcl::backend::builtin<float> Single;
typedef amgcl::backend::builtin<double> Double;
typedef amgcl::make_solver<
    amgcl::amg<Single, amgcl::coarsening::smoothed_aggregation, amgcl::relaxation::spai0>,
    amgcl::solver::cg<Double>> Solver;
extern "C" int solve(ptrdiff_t n, const ptrdiff_t* start, const ptrdiff_t* column, const double* value,
                     const double* b, double* x, double tolerance) {
  Solver::params options;
  options.solver.tol = tolerance;
  options.solver.maxiter = 500;
  const ptrdiff_t entries = start[n];
  auto A = std::make_tuple((size_t)n, amgcl::make_iterator_range(start, start + n + 1),
                           amgcl::make_iterator_range(column, column + entries),
                           amgcl::make_iterator_range(value, value + entries));
  Solver solver(A, options);
  auto right = amgcl::make_iterator_range(b, b + n);
  auto left = amgcl::make_iterator_range(x, x + n);
  size_t iterations;
  double error;
  std::tie(iterations, error) = solver(right, left);
  return (int)iterations;
}
"""


def compile_amgcl() -> Any:
    """The C++ peer, compiled against the headers at hand."""
    import ctypes
    import subprocess
    import tempfile

    from thermosim.backends.cpu import compiler

    folder = amgcl_include()
    path = compiler()
    if folder is None or path is None:
        raise RuntimeError("no headers of AMGCL or no C++ compiler")
    with tempfile.TemporaryDirectory() as scratch:
        unit, library = Path(scratch) / "solve.cpp", Path(scratch) / "solve.so"
        unit.write_text(AMGCL)
        flags = ["-x", "c++", "-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-w"]
        subprocess.run([path, *flags, f"-I{folder}", str(unit), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library)).solve


def amgcl_aggregation(function: Any, matrix: Matrix, b: Vector, tolerance: float) -> Solution:
    """AMGCL: smoothed aggregation in float32, SPAI-0, CG in double precision, all threads."""
    import ctypes

    start, column = (np.ascontiguousarray(a, dtype=np.int64) for a in (matrix.indptr, matrix.indices))
    x = np.zeros_like(b)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (start, column, matrix.data, b, x)]
    count = function(ctypes.c_int64(len(b)), *pointers, ctypes.c_double(tolerance))
    return x, int(count)


Solve = Callable[[Matrix, Vector, float], Solution]

PEERS: dict[str, tuple[str, Solve | None, str]] = {
    "SciPy CG, Jacobi": ("scipy", scipy_cg, "1 thread"),
    "PyAMG, smoothed aggregation": ("pyamg", pyamg_aggregation, "1 thread"),
    "PyAMG, classical": ("pyamg", pyamg_classical, "1 thread"),
    "PETSc with hypre": ("petsc4py", petsc_hypre, "1 process"),
    "AMGCL": ("amgcl", None, "all threads"),
}
"""By name: package, solver (None: compiled first), and what of the machine it uses."""

MULTIGRID = ("PyAMG, smoothed aggregation", "PyAMG, classical", "PETSc with hypre", "AMGCL")


def measure(name: str, path: str, tolerance: float) -> dict[str, Any]:
    """Seconds of set-up and solve of one peer on the system in a .npz file, and its true residual."""
    package, solve, uses = PEERS[name]
    if solve is None:
        found = "headers" if amgcl_include() is not None else None
        remedy = "set AMGCL_INCLUDE to the folder with AMGCL's headers"
    else:
        found, remedy = version(package), REMEDY if package != "petsc4py" else "install petsc4py with hypre"
    if found is None:
        return {"missing": f"{package} was not found; {remedy}"}
    if solve is None:
        function = compile_amgcl()

        def solve(matrix: Matrix, b: Vector, tolerance: float) -> Solution:
            return amgcl_aggregation(function, matrix, b, tolerance)

    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    cells = arrays["b"].size
    matrix, b, active = assemble(arrays)
    del arrays
    warm = sparse.csr_array(matrix[:1000, :1000] + sparse.eye_array(1000) * 1e-9) if name == "AMGCL" else None
    if warm is not None:
        solve(warm, b[:1000] + 1.0, 0.1)  # wakes its threads
    with PeakGrowth() as growth:
        begun = time.perf_counter()
        x, iterations = solve(matrix, b, tolerance)
        seconds = time.perf_counter() - begun
    matrix_bytes = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    return {
        "version": found,
        "uses": uses,
        "seconds": seconds,
        "iterations": iterations,
        "true_residual": true_residual(matrix, b, x),
        "unknowns": len(active),
        "bytes_per_cell": None if growth.bytes is None else (growth.bytes + matrix_bytes) / cells,
    }
