"""The electric potential of several electrodes, and the heat it leaves in tissue.

∇·(σ(T) ∇φ) = 0 (quasi-static; Plonsey & Heppner 1967, Bull Math Biophys 29:657), φ = V on bare
metal, no current through insulated shafts, φ = 0 at the ground. For a given σ one field per
terminal (a group of electrodes bonded together) at unit potential, the others at zero, gives the
admittance matrix; every drive follows by superposition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Array, Backend, Layout
from thermosim.errors import InputError
from thermosim.numerics.link_factors import LinkFactors
from thermosim.numerics.multigrid import Links, MultigridSolver
from thermosim.numerics.workspace import Workspace

FACES = ("-x", "+x", "-y", "+y", "-z", "+z")


@dataclass(frozen=True)
class ConductivityLaw:
    """σ(T) of every label: σ_37 · ratio(T), see `kernels/laws.h`.

    `sigma_37` [S/m] and `slope` [1/K] by label; `is_blood` by label marks cells whose heat the blood
    carries away at once; `law` 0 constant, 1 linear, 2 exponential;
    above `collapse` [°C] σ falls log-linearly to `factor` of its value over `width` [K]. Temperature
    fields are counted from `reference` [°C].
    """

    sigma_37: NDArray[np.float32]
    slope: NDArray[np.float32]
    is_blood: NDArray[np.float32]
    law: int
    collapse: float
    width: float
    factor: float
    reference: float


@dataclass(frozen=True)
class WallList:
    """The links of one wall on the device: cells in memory, factors, and how many."""

    n: int
    cell: Array
    factor: Array

    @classmethod
    def of(
        cls, backend: Backend, layout: Layout, cells: NDArray[np.int64], factors: NDArray[np.float64]
    ) -> WallList:
        return cls(
            len(cells),
            backend.asarray(layout.memory_index(cells), "int32"),
            backend.asarray(factors, "float32"),
        )


def ground_links(
    shape: tuple[int, int, int], ground: str, spacing: float, center: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Links of boundary cells to the ground: cells and factors (conductance = h · factor · σ).

    `ground`: ``faces`` grounds all six faces of the box (factor 2: half a cell), a list such as
    ``-z,+z`` only those, ``far_field`` mimics a large body: φ falls as 1/r from `center` (m from
    the box's lower corner), so −∂φ/∂n = φ (n·r)/r² on the faces, in series with the half cell.
    """
    n_cells = int(np.prod(shape))
    cell = np.arange(n_cells).reshape(shape)
    if ground == "far_field" or ground == "faces":
        faces: Sequence[str] = FACES
    else:
        faces = [face.strip() for face in ground.split(",")]
        unknown = [face for face in faces if face not in FACES]
        if unknown or not faces:
            raise InputError(
                f"protocol.ground={ground!r}: choose faces, far_field or some of {', '.join(FACES)}"
            )
    cells, factors = [], []
    for face in faces:
        axis = "xyz".index(face[1])
        where: list[slice | int] = [slice(None)] * 3
        where[axis] = 0 if face[0] == "-" else shape[axis] - 1
        chosen = cell[tuple(where)].ravel()
        if ground == "far_field":
            ijk = np.stack(np.unravel_index(chosen, shape), axis=-1).astype(float)
            point = (ijk + 0.5) * spacing
            point[:, axis] = 0.0 if face[0] == "-" else shape[axis] * spacing
            arm = point - center
            normal = np.abs(arm[:, axis])
            length = np.sum(arm**2, axis=1) / np.maximum(normal, 0.25 * spacing)
            factor = spacing / (0.5 * spacing + length)
        else:
            factor = np.full(len(chosen), 2.0)
        cells.append(chosen)
        factors.append(factor)
    unique, inverse = np.unique(np.concatenate(cells), return_inverse=True)
    return unique, np.asarray(np.bincount(inverse, weights=np.concatenate(factors)), dtype=np.float64)


class ElectricPotential:
    """Unit-potential fields of the terminals for the present σ(T), and what follows from them.

    Parameters
    ----------
    labels : padded uint8 field; `law` is indexed by it (σ = 0 where no current flows).
    links : fitted links of the electrodes; wall owner = electrode index.
    ground : cells and factors of the links to ground.
    workspace : overwritten by every solve.
    """

    def __init__(
        self,
        backend: Backend,
        layout: Layout,
        spacing: float,
        labels: Array,
        law: ConductivityLaw,
        links: LinkFactors,
        n_electrodes: int,
        ground: tuple[NDArray[np.int64], NDArray[np.float64]],
        workspace: Workspace,
    ) -> None:
        self.backend, self.layout, self.spacing, self.labels = backend, layout, spacing, labels
        self._law = (
            backend.asarray(law.sigma_37, "float32"),
            backend.asarray(law.slope, "float32"),
            np.int32(law.law),
            np.float32(law.collapse),
            np.float32(law.width),
            np.float32(math.log(law.factor)),
        )
        self._reference = np.float32(law.reference)
        self._is_blood = backend.asarray(law.is_blood, "float32")
        self.sigma = backend.field(layout)
        self.links = Links.empty(backend, layout)
        self.solver = MultigridSolver(backend, self.links, workspace)
        self.solves = 0
        self.iterations = 0
        self.fields: list[Array] = []
        self.terminals: tuple[tuple[int, ...], ...] = ()
        self.set_geometry(links, n_electrodes, ground)

    def set_geometry(
        self,
        links: LinkFactors,
        n_electrodes: int,
        ground: tuple[NDArray[np.int64], NDArray[np.float64]],
    ) -> None:
        """Take over the links of (moved) electrodes; fields must be solved again."""
        backend, layout = self.backend, self.layout
        memory = layout.memory_index(links.face_cells)
        self._faces = []
        for axis in range(3):
            chosen = links.face_axes == axis
            self._faces.append(
                (
                    int(chosen.sum()),
                    backend.asarray(memory[chosen], "int32"),
                    backend.asarray(links.face_factors[chosen], "float32"),
                )
            )
        self.walls = [
            WallList.of(backend, layout, links.wall_cells[own], links.wall_factors[own])
            for own in (links.wall_owners == e for e in range(n_electrodes))
        ]
        for electrode, wall in enumerate(self.walls):
            if wall.n == 0:
                raise InputError(f"electrode {electrode + 1} touches no tissue of the computing box")
        solid = np.zeros(layout.n_cells, dtype=bool)
        solid[links.solid_cells] = True
        to_ground = ~solid[ground[0]]
        cells = np.concatenate([links.wall_cells, ground[0][to_ground]])
        factors = np.concatenate([links.wall_factors, ground[1][to_ground]])
        unique, inverse, count = np.unique(cells, return_inverse=True, return_counts=True)
        self._alone = [
            backend.asarray(count[np.searchsorted(unique, links.wall_cells[own])] == 1, "float32")
            for own in (links.wall_owners == e for e in range(n_electrodes))
        ]
        total = np.asarray(np.bincount(inverse, weights=factors), dtype=np.float64)
        self._leaks = WallList.of(backend, layout, unique, total)
        self._ground = WallList.of(backend, layout, ground[0][to_ground], ground[1][to_ground])
        self.links.leak[:] = 0.0
        self.set_terminals(self.terminals)

    def set_terminals(self, terminals: tuple[tuple[int, ...], ...]) -> None:
        """Choose which electrodes are bonded together; their fields start from zero."""
        self.terminals = terminals
        self.fields = [self.backend.field(self.layout) for _ in terminals]

    def update_conductances(self, temperature: Array) -> None:
        """σ(T) and all links from the temperature of the moment."""
        self.backend.on_cells(
            "electrical_conductivity",
            self.layout,
            temperature,
            self._reference,
            self.labels,
            *self._law,
            self.sigma,
        )
        self.restore_conductances()

    def restore_conductances(self) -> None:
        """All links from the σ at hand."""
        backend, layout, links = self.backend, self.layout, self.links
        backend.on_cells("face_conductance", layout, self.sigma, links.gx, links.gy, links.gz)
        for (n, face, factor), g in zip(self._faces, (links.gx, links.gy, links.gz), strict=True):
            backend.on_entries("scale_faces", n, face, factor, g)
        leaks = self._leaks
        backend.on_entries("wall_leak", leaks.n, leaks.cell, leaks.factor, self.sigma, links.leak)
        self.solver.coarsen()

    def solve(self, tolerance: float, maximum_iterations: int) -> None:
        """Solve every terminal's field for the present conductances, from the fields at hand."""
        for terminal, field in zip(self.terminals, self.fields, strict=True):
            report = self.solver.solve(
                field, partial(self._add_inflow, terminal), tolerance, maximum_iterations
            )
            self.solves += 1
            self.iterations += report.iterations

    def true_relative_residuals(self) -> list[float]:
        """‖b − A φ‖ / ‖b‖ of every terminal's field, computed afresh."""
        return [
            self.solver.true_relative_residual(field, partial(self._add_inflow, terminal))
            for terminal, field in zip(self.terminals, self.fields, strict=True)
        ]

    def _add_inflow(self, terminal: tuple[int, ...], residual: Array) -> None:
        for electrode in terminal:
            wall = self.walls[electrode]
            self.backend.on_entries("wall_inflow", wall.n, wall.cell, wall.factor, self.sigma, residual)

    def electrode_current(self, field: Array, electrode: int, potential: float) -> float:
        """Current [A] out of one electrode at `potential` into tissue whose potential is `field`."""
        wall = self.walls[electrode]
        current = self.backend.full(wall.n, 0.0, "float64")
        self.backend.on_entries(
            "wall_current",
            wall.n,
            np.int32(self.layout.sx),
            np.int32(self.layout.sy),
            wall.cell,
            wall.factor,
            self._alone[electrode],
            self.sigma,
            field,
            *self.links.arrays[:3],
            np.float32(potential),
            current,
        )
        return self.spacing * float(current.sum())

    def admittances(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Y [S] of the terminals, (n, n) symmetric, and of the electrodes, (n_electrodes, n).

        Entry (i, j): current out of i when terminal j is at 1 V and all others at 0.
        """
        single = np.empty((len(self.walls), len(self.terminals)))
        for j, (driven, field) in enumerate(zip(self.terminals, self.fields, strict=True)):
            for e in range(len(self.walls)):
                single[e, j] = self.electrode_current(field, e, 1.0 if e in driven else 0.0)
        matrix = np.array([single[list(terminal)].sum(axis=0) for terminal in self.terminals])
        return 0.5 * (matrix + matrix.T), single

    def superpose(self, voltages: NDArray[np.float64], out: Array) -> None:
        """out = Σ V_t φ_t [V]."""
        for number, (voltage, field) in enumerate(zip(voltages, self.fields, strict=True)):
            keep = np.float32(1.0 if number else 0.0)
            self.backend.on_cells("scale_add", self.layout, np.float32(voltage), field, keep, out)

    def joule_heating(
        self, voltages: NDArray[np.float64], potential: Array, heat: Array
    ) -> tuple[float, float]:
        """Fill `heat` [W/m³] for given terminal voltages; returns Σ q h³ [W] of all and of blood.

        Half of each link's g (Δφ)² goes to each end, all of a wall link's to its tissue cell, so that
        the sum is the electrical power Σ V I of the discrete problem.
        """
        backend, layout, links = self.backend, self.layout, self.links
        self.superpose(voltages, potential)
        inverse_h2 = np.float32(1.0 / self.spacing**2)
        backend.on_cells("joule_heat", layout, potential, links.gx, links.gy, links.gz, inverse_h2, heat)
        for voltage, terminal in zip(voltages, self.terminals, strict=True):
            for electrode in terminal:
                self._add_wall_heat(self.walls[electrode], potential, float(voltage), inverse_h2, heat)
        self._add_wall_heat(self._ground, potential, 0.0, inverse_h2, heat)
        total, in_blood = backend.row_sums("total_heat", layout, 2, heat, self.labels, self._is_blood)
        return self.spacing**3 * total, self.spacing**3 * in_blood

    def _add_wall_heat(
        self, wall: WallList, potential: Array, voltage: float, inverse_h2: np.float32, heat: Array
    ) -> None:
        self.backend.on_entries(
            "wall_joule_heat",
            wall.n,
            wall.cell,
            wall.factor,
            self.sigma,
            potential,
            np.float32(voltage),
            inverse_h2,
            heat,
        )

    def drift(self, temperature: Array, heat: Array) -> tuple[float, float]:
        """How conductance and field have changed since the last solve.

        Returns c, the factor on the conductance of the driven pattern, and a bound on the relative
        error in energy norm of the field as it was solved. With r = σ/σ_solved cell by cell and
        c = Σ q r / Σ q, the old field is compared with the new problem through c A_old: A e = −δA φ
        gives ‖e‖_A² ≤ Σ (δg)²/g (Δφ)², and with δg = g − c g_old

            (‖e‖_A / ‖φ‖_A)² ≤ (Σ q r)(Σ q / r) / (Σ q)² − 1 ≥ 0   (Cauchy-Schwarz).

        An even change of σ costs nothing; the error of the conductance itself is of second order.
        """
        total, rising, falling = self.backend.row_sums(
            "conductivity_drift",
            self.layout,
            3,
            temperature,
            self._reference,
            self.labels,
            *self._law,
            self.sigma,
            heat,
        )
        if not total > 0.0:
            return 1.0, 0.0
        return rising / total, math.sqrt(max(0.0, rising * falling / total**2 - 1.0))
