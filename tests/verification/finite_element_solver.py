"""Potential, bioheat and damage by finite elements of second order: another method, mesh and time scheme.

Shares no code with the program: scikit-fem's basis and quadrature, properties and Joule heat at quadrature
points, implicit steps of second order (BDF2, nonlinear terms extrapolated), conjugate gradients with a
two-level preconditioner of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree
from skfem import Basis, BilinearForm, ElementHex1, ElementHex2, FacetBasis, LinearForm, MeshHex2
from skfem.mapping import MappingIsoparametric

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

BODY = 37.0
KELVIN = 273.15
GAS = 8.314462618
LN_A, ACTIVATION = np.log(7.39e39), 2.577e5


@dataclass(frozen=True)
class Materials:
    """Properties at the quadrature points (n_elements, n_points), at 37 °C, with slopes [1/K]."""

    sigma: Array
    sigma_slope: Array
    k: Array
    k_slope: Array
    capacity: Array
    perfusion: Array  # W = ω ρ_b c_b [W/(m³ K)]


@dataclass(frozen=True)
class Film:
    """A wall that carries heat away: facets of the mesh, h [W/(m² K)], temperature behind it [°C]."""

    facets: NDArray[np.int64]
    transfer: float
    temperature: float


@dataclass
class History:
    """What the run leaves: readings of resistance and, at the end, nodal fields."""

    time: list[float] = field(default_factory=list)
    resistance: list[float] = field(default_factory=list)
    currents: list[tuple[float, ...]] = field(default_factory=list)
    temperature: Array = field(default_factory=lambda: np.empty(0))
    log_damage: Array = field(default_factory=lambda: np.empty(0))


def arrhenius_rate(temperature: Array | float) -> Array:
    return np.asarray(np.exp(LN_A - ACTIVATION / (GAS * (temperature + KELVIN))))


class Pattern:
    """Element matrices summed into one sparse matrix, its pattern found once."""

    def __init__(self, dofs: NDArray[np.int64], n: int) -> None:
        k, self.n = dofs.shape[0], n
        rows, columns = np.repeat(dofs, k, axis=0).T.ravel(), np.tile(dofs, (k, 1)).T.ravel()
        keys, self.place = np.unique(rows.astype(np.int64) * n + columns, return_inverse=True)
        self.indices = (keys % n).astype(np.int32)
        self.indptr = np.searchsorted(keys // n, np.arange(n + 1)).astype(np.int32)

    def matrix(self, elements: Array) -> csr_matrix:
        data = np.bincount(self.place, elements.ravel(), len(self.indices))
        return csr_matrix((data, self.indices, self.indptr), shape=(self.n, self.n))


class _Mapping(MappingIsoparametric):  # type: ignore[misc]
    """The library's, with a tolerance that cells of 0.1 mm at 30 mm from the origin can reach in float64."""

    def invF(self, x, tind=None, newton_max_iters=50, newton_tol=1e-9):  # type: ignore[no-untyped-def]
        return super().invF(x, tind, newton_max_iters, newton_tol)


class Domain:
    """Second-order space on some elements of the mesh, with fixed values on some of its nodes."""

    def __init__(self, mesh: MeshHex2, elements: NDArray[np.int64]) -> None:
        self.mesh, self.elements = mesh, elements
        self.basis = Basis(mesh, ElementHex2(), intorder=4, elements=elements)
        linear = Basis(mesh, ElementHex1(), intorder=4, elements=elements)
        self.dofs = self.basis.element_dofs[:, :].astype(np.int64)
        self.n = int(self.basis.N)
        self.value = np.stack([np.asarray(f[0])[0] for f in self.basis.basis])  # the same in all elements
        self.gradient = np.ascontiguousarray(
            np.stack([f[0].grad for f in self.basis.basis]).transpose(2, 1, 3, 0)
        ).reshape(len(elements), -1, 27)  # (element, 3 × point, function)
        self.dx = self.basis.dx
        self.pattern = Pattern(self.dofs, self.n)
        # a first-order function at the second-order nodes: for the preconditioner's coarse space
        at = ElementHex2().doflocs.T
        weights = np.stack([ElementHex1().lbasis(at, i)[0] for i in range(8)])  # (8, 27)
        entry = np.zeros((self.n, 8))
        column = np.zeros((self.n, 8), dtype=np.int64)
        entry[self.dofs] = weights.T[:, None, :]
        column[self.dofs] = linear.element_dofs.T[None, :, :]
        self.lift = csr_matrix(
            (entry.ravel(), column.ravel(), np.arange(0, 8 * self.n + 1, 8)), shape=(self.n, linear.N)
        )
        self.lift.eliminate_zeros()
        used = np.zeros(self.n, dtype=bool)
        used[self.dofs] = True
        self.used = used

    def at_points(self, nodal: Array) -> Array:
        return nodal[self.dofs].T @ self.value

    def gradient_at_points(self, nodal: Array) -> Array:
        """(element, 3, point)."""
        flat = np.matmul(self.gradient, nodal[self.dofs].T[:, :, None])[..., 0]
        return flat.reshape(len(self.elements), 3, -1)

    def stiffness(self, coefficient: Array) -> csr_matrix:
        """∫ s ∇u·∇v."""
        weight = np.tile(coefficient * self.dx, (1, 3))[:, :, None]
        return self.pattern.matrix(np.matmul(self.gradient.transpose(0, 2, 1), weight * self.gradient))

    def mass(self, coefficient: Array) -> csr_matrix:
        """∫ s u v."""
        weight = (coefficient * self.dx)[:, None, :]
        return self.pattern.matrix(np.matmul(weight * self.value, self.value.T))

    def load(self, source: Array) -> Array:
        """∫ s v."""
        return self._scatter((source * self.dx) @ self.value.T)

    def divergence_load(self, flux: Array) -> Array:
        """∫ F·∇v, F (element, 3, point)."""
        weighted = (flux * self.dx[:, None, :]).reshape(len(self.elements), 1, -1)
        return self._scatter(np.matmul(weighted, self.gradient)[:, 0])

    def _scatter(self, elements: Array) -> Array:
        return np.bincount(self.dofs.T.ravel(), elements.ravel(), self.n)


class TwoLevel:
    """Preconditioner: one damped Jacobi sweep before and after a direct solve on first-order elements."""

    def __init__(self, matrix: csr_matrix, lift: csr_matrix, free: Mask) -> None:
        self.diagonal = matrix.diagonal()
        lifted = lift[free]
        keep = np.diff(lifted.tocsc().indptr) > 0
        self.lift = lifted[:, keep].tocsr()
        coarse = (self.lift.T @ matrix @ self.lift).tocsc()
        self.solve = splu(
            coarse, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        ).solve
        self.damping = 0.35  # below 2 / λ_max of D⁻¹A, which is about 3 to 5 on these meshes

    def __call__(self, matrix: csr_matrix, residual: Array) -> Array:
        x = self.damping * residual / self.diagonal
        x += self.lift @ self.solve(self.lift.T @ (residual - matrix @ x))
        x += self.damping * (residual - matrix @ x) / self.diagonal
        return x


def conjugate_gradients(
    matrix: csr_matrix, right: Array, start: Array, precondition: TwoLevel, tolerance: float = 1e-6
) -> tuple[Array, int]:
    """Solve to a true relative residual of `tolerance`."""
    x = start.copy()
    r = right - matrix @ x
    goal = tolerance * np.linalg.norm(right)
    p, rz = np.zeros_like(x), 1.0
    for n in range(400):
        if np.linalg.norm(r) <= goal:
            return x, n
        z = precondition(matrix, r)
        rz, before = float(r @ z), rz
        p = z + (rz / before if n else 0.0) * p
        q = matrix @ p
        step = rz / float(p @ q)
        x += step * p
        r -= step * q
    raise RuntimeError("conjugate gradients did not converge in 400 iterations")


class FiniteElements:
    """One case: both fields on their domains."""

    def __init__(
        self,
        mesh: MeshHex2,
        is_blood: Mask,
        materials: Materials,
        terminals: list[NDArray[np.int64]],
        outside: NDArray[np.int64],
        films: list[Film],
    ) -> None:
        """`terminals`: facets of each needle's bare metal; `outside`: facets of the box's faces."""
        everywhere = np.arange(mesh.nelements)
        self.electric = Domain(mesh, everywhere)
        self.tissue = everywhere[~is_blood]
        self.thermal = Domain(mesh, self.tissue)
        self.materials, self.is_blood = materials, is_blood
        basis = self.electric.basis
        self.metal = [basis.get_dofs(facets).all() for facets in terminals]
        self.rim = basis.get_dofs(outside).all()
        self.fixed = np.zeros(self.electric.n, dtype=bool)
        self.fixed[np.concatenate([*self.metal, self.rim])] = True
        self.held = np.zeros(self.thermal.n, dtype=bool)
        self.held[self.rim] = True
        self.film_matrix = csr_matrix((self.thermal.n, self.thermal.n))
        self.film_load = np.zeros(self.thermal.n)
        for film in films:
            wall = FacetBasis(
                mesh, ElementHex2(), _Mapping(mesh, mesh.elem(), mesh.bndelem), facets=film.facets, intorder=4
            )
            self.film_matrix = self.film_matrix + film.transfer * BilinearForm(
                lambda u, v, _: u * v
            ).assemble(wall)
            rise = film.transfer * (film.temperature - BODY)
            self.film_load += rise * LinearForm(lambda v, _: v).assemble(wall)
        self._precondition: TwoLevel | None = None
        self.iterations = 0

    # ------------------------------------------------------------------ potential

    def sigma_at(self, temperature: Array) -> Array:
        """σ(T) of all elements; blood keeps its own."""
        m = self.materials
        ratio = np.ones_like(m.sigma)
        warm = self.thermal.at_points(temperature)
        ratio[self.tissue] = 1.0 + m.sigma_slope[self.tissue] * warm
        return m.sigma * ratio

    def potential(self, sigma: Array, start: Array) -> tuple[Array, tuple[float, ...]]:
        """φ for 1 V on all metal, and the currents out of each needle [A] (of the whole box)."""
        d = self.electric
        matrix = d.stiffness(sigma)
        phi = np.zeros(d.n)
        phi[np.concatenate(self.metal)] = 1.0
        free = ~self.fixed & d.used
        inner = matrix[free][:, free]
        right = -(matrix @ phi)[free]
        if self._precondition is None:
            self._precondition = TwoLevel(inner, d.lift, free)
        phi[free], n = conjugate_gradients(inner, right, start[free], self._precondition)
        self.iterations += n
        # reaction at the metal's nodes: conserving, and as accurate as the energy
        reaction = matrix @ phi
        return phi, tuple(2.0 * float(reaction[nodes].sum()) for nodes in self.metal)

    # ------------------------------------------------------------------ heat

    def run(self, voltage: float, duration: float, step: float, solves: Array) -> History:
        """Constant voltage from 37 °C on; φ is solved at the times `solves` and extrapolated between.

        Temperatures are counted from 37 °C inside.
        """
        d, m, tissue = self.thermal, self.materials, self.tissue
        capacity, perfusion = m.capacity[tissue], m.perfusion[tissue]
        k, k_slope = m.k[tissue], m.k_slope[tissue]
        free = ~self.held & d.used
        stiffness = d.stiffness(k) + self.film_matrix
        mass = d.mass(capacity)
        first = (mass / step + stiffness)[free][:, free]
        later = (1.5 * mass / step + stiffness)[free][:, free]
        precondition = TwoLevel(later, d.lift, free)
        temperature = before = np.zeros(d.n)
        warm_before = np.zeros_like(k)
        hurt = np.zeros_like(k)  # Ω at the quadrature points, for perfusion
        damage = np.zeros(d.n)
        history = History()
        phi_old = phi = np.zeros(self.electric.n)
        time_old = time_phi = 0.0
        n_steps = round(duration / step)
        due = list(solves)
        for number in range(n_steps + 1):
            time = number * step
            if due and time >= due[0] - 1e-9:
                due.pop(0)
                phi_old, time_old = phi, time_phi
                phi, currents = self.potential(self.sigma_at(temperature), phi)
                time_phi = time
                history.time.append(time)
                history.resistance.append(1.0 / sum(currents))
                history.currents.append(currents)
            if number == n_steps:
                break
            guess = 2.0 * temperature - before if number else temperature
            ahead = (time + step - time_phi) / (time_phi - time_old) if time_phi > time_old else 0.0
            field_ahead = self.electric.gradient_at_points(phi + ahead * (phi - phi_old))[tissue]
            warm = d.at_points(guess)
            sigma = m.sigma[tissue] * (1.0 + m.sigma_slope[tissue] * warm)
            source = voltage**2 * sigma * (field_ahead**2).sum(axis=1)
            rate = arrhenius_rate(BODY + 0.5 * (warm + warm_before))
            hurt += step * (rate - arrhenius_rate(BODY))  # perfusion counts from unheated tissue
            source -= perfusion * np.exp(-hurt) * warm
            right = d.load(source) + self.film_load
            flux = (k * k_slope * warm)[:, None, :] * d.gradient_at_points(guess)
            right -= d.divergence_load(flux)
            if number:
                right += mass @ (2.0 * temperature - 0.5 * before) / step
            else:
                right += mass @ temperature / step
            new = np.zeros(d.n)
            new[free], _ = conjugate_gradients(
                later if number else first, right[free], guess[free], precondition
            )
            damage += step * arrhenius_rate(BODY + 0.5 * (new + temperature))
            warm_before = warm
            before, temperature = temperature, new
        history.temperature = BODY + temperature
        history.log_damage = np.log(damage, where=d.used, out=np.full(d.n, np.nan))
        return history


class Probe:
    """Values of nodal fields anywhere in tissue, by inverting the mapping of the element around."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.mapping = domain.mesh.mapping()
        self.corners = domain.mesh.doflocs[:, domain.mesh.t[:, domain.elements]]  # (3, 8, n)
        self.tree = cKDTree(self.corners.mean(axis=1).T)

    def __call__(self, nodal: Array, points: Array) -> Array:
        """Values at points (n, 3) [m], y of either sign; NaN outside the tissue."""
        mirrored = np.abs(points) * [0, 1, 0] + points * [1, 0, 1]
        found = np.full(len(points), np.nan)
        worst = np.full(len(points), np.inf)
        _, near = self.tree.query(mirrored, k=40)
        for candidate in near.T:
            open_ = np.flatnonzero(worst > 1e-6)
            if len(open_) == 0:
                break
            local = self._invert(mirrored[open_], candidate[open_])
            beyond = np.maximum(np.maximum(-local, local - 1.0), 0.0).max(axis=0)
            values = np.stack([ElementHex2().lbasis(local, i)[0] for i in range(27)])
            better = beyond < np.minimum(worst[open_], 1e-3)
            at = open_[better]
            found[at] = np.einsum("ip,ip->p", values[:, better], nodal[self.domain.dofs[:, candidate[at]]])
            worst[at] = beyond[better]
        return found

    def _invert(self, points: Array, elements: NDArray[np.int64]) -> Array:
        nodes = self.domain.mesh.doflocs[:, self.domain.dofs[:, elements]]  # (3, 27, n)
        local = np.full((3, len(points)), 0.5)
        for _ in range(12):
            shape = [ElementHex2().lbasis(local, i) for i in range(27)]
            value = np.stack([s[0] for s in shape])
            slope = np.stack([s[1] for s in shape])  # (27, 3, n)
            missing = points.T - np.einsum("din,in->dn", nodes, value)
            jacobian = np.einsum("din,ijn->ndj", nodes, slope)
            local = local + np.clip(np.linalg.solve(jacobian, missing.T[:, :, None])[:, :, 0].T, -0.5, 0.5)
            local = np.clip(local, -0.3, 1.3)
        return local


def zone_volume(domain: Domain, log_damage: Array, cuts: int = 8) -> float:
    """Volume [m³] of tissue with Ω ≥ 1, both halves of the box: each element sampled at cuts³ points."""
    middle = (np.arange(cuts) + 0.5) / cuts
    local = np.stack(np.meshgrid(middle, middle, middle, indexing="ij")).reshape(3, -1)
    shape = [ElementHex2().lbasis(local, i) for i in range(27)]
    value, slope = np.stack([s[0] for s in shape]), np.stack([s[1] for s in shape])
    level = log_damage[domain.dofs]
    touched = np.flatnonzero(level.max(axis=0) > -1.0)
    total = 0.0
    for part in np.array_split(touched, len(touched) // 500 + 1):
        nodes = domain.mesh.doflocs[:, domain.dofs[:, part]]
        j = np.einsum("dim,icp->mpdc", nodes, slope)
        inside = (level[:, part].T @ value) >= 0.0
        total += float((np.abs(np.linalg.det(j)) * inside).sum()) / cuts**3
    return 2.0 * total
