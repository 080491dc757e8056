"""A tree of vessels as straight round segments: distances to its wall, Murray's law, order of branches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError

Points = NDArray[np.float64]


def point_segment_distances(points: Points, start: Points, end: Points) -> Points:
    """Distance of each point (n, 3) to each segment from `start` to `end` (m, 3): (n, m), same unit."""
    axis = end - start
    offset = points[:, None, :] - start[None, :, :]
    squared_length = np.maximum(np.einsum("mi,mi->m", axis, axis), 1e-30)
    along = np.clip(np.einsum("nmi,mi->nm", offset, axis) / squared_length, 0.0, 1.0)
    offset -= along[:, :, None] * axis
    return np.asarray(np.sqrt(np.einsum("nmi,nmi->nm", offset, offset)))


def segment_segment_distances(start: Points, end: Points, other_start: Points, other_end: Points) -> Points:
    """Least distance between each segment (n) of one set and each (m) of another: (n, m).

    Source: C. Ericson, Real-Time Collision Detection, 2005, section 5.1.9.
    """
    first, second = end - start, other_end - other_start
    between = start[:, None, :] - other_start[None, :, :]
    a = np.maximum(np.einsum("ni,ni->n", first, first), 1e-30)[:, None]
    e = np.maximum(np.einsum("mi,mi->m", second, second), 1e-30)[None, :]
    b = first @ second.T
    c = np.einsum("nmi,ni->nm", between, first)
    f = np.einsum("nmi,mi->nm", between, second)
    determinant = a * e - b * b
    parallel = determinant < 1e-12 * a * e
    s = np.clip(np.where(parallel, 0.0, (b * f - c * e) / np.where(parallel, 1.0, determinant)), 0.0, 1.0)
    t = (b * s + f) / e
    s = np.where(t < 0.0, np.clip(-c / a, 0.0, 1.0), np.where(t > 1.0, np.clip((b - c) / a, 0.0, 1.0), s))
    t = np.clip(t, 0.0, 1.0)
    gap = between + s[..., None] * first[:, None, :] - t[..., None] * second[None, :, :]
    return np.asarray(np.sqrt(np.einsum("nmi,nmi->nm", gap, gap)))


@dataclass(frozen=True)
class VesselTree:
    """Vessels of one group: round segments between nodes, each with a constant radius.

    The order of parents gives the direction of flow: away from the roots in the portal vein (the
    root is the inlet), towards them in the hepatic veins (each root is an outlet). Several roots
    make a forest. The lumen is the union of the segments with rounded ends.

    Parameters
    ----------
    group : vessel group, for example ``portal_vein``.
    nodes : (n, 3) LPS [m].
    segments : (m, 2) node towards the root, node away from it.
    parents : (m,) parent segment, -1 at a root; parents come before their children.
    radii : (m,) [m].

    Raises
    ------
    InputError
        If the arrays do not fit together, a radius is not positive, or a parent does not end
        where its child begins.
    """

    group: str
    nodes: NDArray[np.float64]
    segments: NDArray[np.int64]
    parents: NDArray[np.int64]
    radii: NDArray[np.float64]

    def __post_init__(self) -> None:
        count = len(self.segments)
        if self.nodes.ndim != 2 or self.nodes.shape[1] != 3 or self.segments.shape != (count, 2):
            raise InputError(
                f"vessel tree {self.group!r}: nodes {self.nodes.shape} must be (n, 3) "
                f"and segments {self.segments.shape} (m, 2); reshape them"
            )
        if count == 0 or self.parents.shape != (count,) or self.radii.shape != (count,):
            raise InputError(
                f"vessel tree {self.group!r}: {count} segments, {len(self.parents)} parents and "
                f"{len(self.radii)} radii; give one parent and one radius per segment, at least one"
            )
        if not (np.all(np.isfinite(self.nodes)) and np.all(np.isfinite(self.radii)) and self.radii.min() > 0):
            raise InputError(
                f"vessel tree {self.group!r}: least radius {1e3 * float(np.min(self.radii)):g} mm; "
                "nodes must be finite and radii positive; remove such segments"
            )
        if self.segments.min() < 0 or self.segments.max() >= len(self.nodes):
            raise InputError(
                f"vessel tree {self.group!r}: segments name node {int(self.segments.max())} of "
                f"{len(self.nodes)} nodes; list every node"
            )
        if np.any(self.parents >= np.arange(count)) or self.parents.min() < -1:
            raise InputError(
                f"vessel tree {self.group!r}: a parent must come before its child; sort the segments"
            )
        child = self.parents >= 0
        if np.any(self.segments[self.parents[child], 1] != self.segments[child, 0]):
            raise InputError(
                f"vessel tree {self.group!r}: a child segment does not begin at its parent's end; "
                "join them at one node"
            )

    @cached_property
    def starts(self) -> Points:
        """End of each segment towards the root (m, 3) [m]."""
        return self.nodes[self.segments[:, 0]]

    @cached_property
    def ends(self) -> Points:
        """End of each segment away from the root (m, 3) [m]."""
        return self.nodes[self.segments[:, 1]]

    @property
    def n_segments(self) -> int:
        return len(self.segments)

    @cached_property
    def n_children(self) -> NDArray[np.int64]:
        """Number of child segments of each segment."""
        return np.bincount(self.parents[self.parents >= 0], minlength=self.n_segments)

    def wide_enough(self, minimum_diameter: float) -> NDArray[np.bool_]:
        """Which segments `pruned` keeps, (m,)."""
        keep = 2 * self.radii >= minimum_diameter * (1 - 1e-9)
        for segment in np.flatnonzero(self.parents >= 0):
            keep[segment] &= keep[self.parents[segment]]
        return np.asarray(keep)

    def nearest_segment(self, points: Points) -> NDArray[np.int64]:
        """The segment whose wall is nearest (in the lumen: deepest) to each point (n, 3), shape (n,)."""
        nearest = np.empty(len(points), np.int64)
        rows = max(1, 2_000_000 // self.n_segments)
        for first in range(0, len(points), rows):
            part = slice(first, first + rows)
            to_wall = point_segment_distances(points[part], self.starts, self.ends) - self.radii
            nearest[part] = np.argmin(to_wall, axis=1)
        return nearest

    def cut(self, length: float) -> tuple[VesselTree, NDArray[np.int64]]:
        """The same tree in segments of at most `length` [m], and the segment each is a piece of."""
        count = np.maximum(1, np.ceil(np.linalg.norm(self.ends - self.starts, axis=1) / length - 1e-9))
        pieces = count.astype(np.int64)
        source = np.repeat(np.arange(self.n_segments), pieces)
        last = np.cumsum(pieces) - 1
        nodes, segments, parents = [*self.nodes], [], []
        for i in range(self.n_segments):
            parent = int(self.parents[i])
            before, first = int(self.segments[i, 0]), -1 if parent < 0 else int(last[parent])
            for k in range(1, pieces[i] + 1):
                after = int(self.segments[i, 1])
                if k < pieces[i]:
                    after = len(nodes)
                    nodes.append(self.starts[i] + (self.ends[i] - self.starts[i]) * k / pieces[i])
                segments.append((before, after))
                parents.append(first)
                before, first = after, len(segments) - 1
        tree = VesselTree(
            self.group, np.array(nodes), np.array(segments), np.array(parents), self.radii[source]
        )
        return tree, source

    def pruned(self, minimum_diameter: float) -> VesselTree | None:
        """The part at least `minimum_diameter` [m] wide and joined to a root; None if nothing is."""
        keep = self.wide_enough(minimum_diameter)
        if not keep.any():
            return None
        new = np.cumsum(keep) - 1
        parents = self.parents[keep]
        parents = np.where(parents >= 0, new[parents], -1)
        return VesselTree(self.group, self.nodes, self.segments[keep], parents, self.radii[keep])

    def signed_distance(self, points: Points) -> tuple[Points, Points]:
        """Distance to the wall and radius of the segment whose wall is nearest, at any points.

        d(p) = minᵢ (|p − segmentᵢ| − rᵢ), negative in the lumen. Outside it is the exact distance
        to the union of the segments.

        Parameters
        ----------
        points : (..., 3) LPS [m].

        Returns
        -------
        distance, radius : both of shape (...) [m].
        """
        flat = np.asarray(points, float).reshape(-1, 3)
        distance, radius = np.empty(len(flat)), np.empty(len(flat))
        rows = max(1, 2_000_000 // self.n_segments)
        for first in range(0, len(flat), rows):
            part = slice(first, first + rows)
            to_wall = point_segment_distances(flat[part], self.starts, self.ends) - self.radii
            nearest = np.argmin(to_wall, axis=1)
            distance[part] = to_wall[np.arange(len(nearest)), nearest]
            radius[part] = self.radii[nearest]
        shape = np.shape(points)[:-1]
        return distance.reshape(shape), radius.reshape(shape)

    def on_grid(self, grid: Grid, band: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Signed distance and nearest radius at cell centres, exact within `band` [m] of the wall.

        Each segment is evaluated in its own bounding box only. Cells further out than `band`
        have the distance `band` and the largest radius of the tree.

        Parameters
        ----------
        grid : axis-aligned. band : [m], positive.

        Returns
        -------
        distance, radius : float32 of the grid's shape [m].
        """
        if not band > 0:
            raise InputError(f"the band around vessel walls is {1e3 * band:g} mm; it must be positive")
        axes = [grid.axis(dimension) for dimension in range(3)]
        distance = np.full(grid.shape, band, np.float32)
        radius = np.full(grid.shape, self.radii.max(), np.float32)
        reach = (self.radii + band)[:, None]
        lower, upper = np.minimum(self.starts, self.ends) - reach, np.maximum(self.starts, self.ends) + reach
        first = np.stack([np.searchsorted(axes[a], lower[:, a]) for a in range(3)], axis=1)
        last = np.stack([np.searchsorted(axes[a], upper[:, a], side="right") for a in range(3)], axis=1)
        for i in np.flatnonzero(np.all(last > first, axis=1)):
            box = tuple(slice(first[i, a], last[i, a]) for a in range(3))
            local = [
                (axes[a][box[a]] - self.starts[i, a]).reshape([-1 if b == a else 1 for b in range(3)])
                for a in range(3)
            ]
            axis = self.ends[i] - self.starts[i]
            squared_length = max(float(axis @ axis), 1e-30)
            along = sum(local[a] * (axis[a] / squared_length) for a in range(3))
            along = np.clip(along, 0.0, 1.0)
            squared = sum((local[a] - along * axis[a]) ** 2 for a in range(3))
            to_wall = (np.sqrt(squared) - self.radii[i]).astype(np.float32)
            nearer = to_wall < distance[box]
            distance[box][nearer] = to_wall[nearer]
            radius[box][nearer] = self.radii[i]
        return distance, radius

    def gap_to(self, other: VesselTree) -> float:
        """Least distance between the walls of two trees [m]; negative where they overlap."""
        least = np.inf
        for first in range(0, self.n_segments, 256):
            part = slice(first, first + 256)
            axes = segment_segment_distances(self.starts[part], self.ends[part], other.starts, other.ends)
            least = min(least, float(np.min(axes - self.radii[part, None] - other.radii[None, :])))
        return least

    def murray_error(self, exponent: float) -> float:
        """Largest |Σ r_c^γ / r_p^γ − 1| over all segments with children.

        Source: C. D. Murray, PNAS 12 (1926) 207, for γ = 3.
        """
        has_parent = self.parents >= 0
        power = self.radii**exponent
        total = np.bincount(self.parents[has_parent], power[has_parent], minlength=self.n_segments)
        inner = self.n_children > 0
        return float(np.max(np.abs(total[inner] / power[inner] - 1), initial=0.0))

    def strahler_orders(self) -> NDArray[np.int64]:
        """Strahler order of each segment: 1 at the tips, one more where two equal orders meet.

        Source: A. N. Strahler, Trans. Am. Geophys. Union 38 (1957) 913.
        """
        highest = np.zeros(self.n_segments, np.int64)
        twice = np.zeros(self.n_segments, bool)
        orders = np.empty(self.n_segments, np.int64)
        for i in range(self.n_segments - 1, -1, -1):
            orders[i] = max(1, highest[i] + twice[i])
            p = self.parents[i]
            if p >= 0:
                twice[p] = (twice[p] and orders[i] <= highest[p]) or orders[i] == highest[p]
                highest[p] = max(highest[p], orders[i])
        return orders

    def chains(self) -> list[NDArray[np.int64]]:
        """Segments joined to smooth vessels: each goes on into its thickest child up to a tip."""
        heir = np.full(self.n_segments, -1)
        for i in range(self.n_segments):
            p = self.parents[i]
            if p >= 0 and (heir[p] < 0 or self.radii[i] > self.radii[heir[p]]):
                heir[p] = i
        chains = []
        for i in range(self.n_segments):
            if self.parents[i] < 0 or heir[self.parents[i]] != i:
                chain = [i]
                while heir[chain[-1]] >= 0:
                    chain.append(int(heir[chain[-1]]))
                chains.append(np.asarray(chain))
        return chains

    def surface(self, sides: int = 8) -> TriangleSurface:
        """Round tubes of `sides` faces along all vessels, closed at both ends, for a picture."""
        points, triangles, count = [], [], 0
        for chain in self.chains():
            line = np.vstack([self.starts[chain[0]], self.ends[chain]])
            width = self.radii[chain]
            width = np.concatenate([width[:1], 0.5 * (width[:-1] + width[1:]), width[-1:]])
            tube, faces = _tube(line, width, sides)
            points.append(tube)
            triangles.append(faces + count)
            count += len(tube)
        return TriangleSurface(np.vstack(points), np.vstack(triangles))


def _tube(line: Points, radii: Points, sides: int) -> tuple[Points, NDArray[np.int64]]:
    """A closed tube around a line (n, 3): rings carried along without twist, and two end caps."""
    tangents = np.gradient(line, axis=0)
    tangents /= np.maximum(np.linalg.norm(tangents, axis=1, keepdims=True), 1e-30)
    normal = np.cross(tangents[0], np.eye(3)[np.argmin(np.abs(tangents[0]))])
    angle = 2 * np.pi * np.arange(sides) / sides
    rings = []
    for point, tangent, radius in zip(line, tangents, radii, strict=True):
        normal = normal - (normal @ tangent) * tangent
        normal /= np.linalg.norm(normal)
        binormal = np.cross(tangent, normal)
        rings.append(point + radius * (np.outer(np.cos(angle), normal) + np.outer(np.sin(angle), binormal)))
    n, k = len(line), np.arange(sides)
    following = (k + 1) % sides
    faces = []
    for i in range(n - 1):
        a, b = i * sides + k, i * sides + following
        faces += [np.stack([a, b, b + sides], axis=1), np.stack([a, b + sides, a + sides], axis=1)]
    first, last = np.full(sides, n * sides), np.full(sides, n * sides + 1)
    faces.append(np.stack([first, following, k], axis=1))
    faces.append(np.stack([last, (n - 1) * sides + k, (n - 1) * sides + following], axis=1))
    return np.vstack([*rings, line[:1], line[-1:]]), np.vstack(faces).astype(np.int64)
