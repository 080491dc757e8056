"""Centre lines of segmented vessels: where they lie, how wide, where the root is, and loops."""

from __future__ import annotations

import numpy as np
import pytest

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.centre_lines import centre_lines, skeleton_tree
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.vessel_tree import VesselTree, point_segment_distances
from thermosim.errors import InputError


def forked() -> VesselTree:
    nodes = np.array([[0, 0, -30], [0, 0, 0], [14, 0, 24], [-14, 5, 24]], float) * 1e-3
    return VesselTree(
        "portal_vein",
        nodes,
        np.array([[0, 1], [1, 2], [1, 3]]),
        np.array([-1, 0, 0]),
        np.array([4.0e-3, 3.0e-3, 2.5e-3]),
    )


def on_grid(tree: VesselTree, spacing: float = 0.6e-3) -> tuple[np.ndarray, Grid]:
    low = np.minimum(tree.starts, tree.ends).min(axis=0) - 8e-3
    high = np.maximum(tree.starts, tree.ends).max(axis=0) + 8e-3
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing))
    grid = Grid.box(tuple(0.5 * (low + high)), shape, spacing)
    return tree.on_grid(grid, 4 * spacing)[0] < 0, grid


def test_a_fork_is_found_again():
    tree = forked()
    found = skeleton_tree(*on_grid(tree), "portal_vein")
    assert (found.parents < 0).sum() == 1
    assert (found.n_children == 0).sum() == 2
    assert (found.n_children == 2).sum() == 1
    # the thickest end, below, is the root; thinning eats up to a radius of it
    assert np.linalg.norm(found.starts[0] - tree.starts[0]) < 4.5e-3
    middle = 0.5 * (found.starts + found.ends)
    apart = point_segment_distances(middle, tree.starts, tree.ends)
    # half a voxel beside the axis; at the junction, where two axes run together, more
    assert np.median(apart.min(axis=1)) < 0.4e-3
    nearest = apart.argmin(axis=1)
    # 10 %: a voxel of 0.6 mm in a radius of 2.5 to 4 mm is known to about half of itself
    ratio = found.radii / tree.radii[nearest]
    assert abs(np.median(ratio) - 1) < 0.05
    assert np.mean(np.abs(ratio - 1) < 0.1) > 0.8


def test_a_closed_surface_is_skeletonised_too():
    tree = VesselTree(
        "hepatic_vein",
        np.array([[0, 0, 0], [0, 0, 0.05]]),
        np.array([[0, 1]]),
        np.array([-1]),
        np.array([3e-3]),
    )
    surface = tree.surface(24)
    found = centre_lines([surface], "hepatic_vein")
    assert found.group == "hepatic_vein"
    assert np.abs(found.nodes[:, :2]).max() < 0.4e-3  # a voxel of 0.5 mm
    # thinning eats up to a radius at each end
    assert 0.043 < np.linalg.norm(found.ends - found.starts, axis=1).sum() <= 0.0505
    # half a voxel of 0.5 mm, and the inscribed circle of a tube of 24 sides is 1 % smaller
    assert found.radii == pytest.approx(3e-3, abs=0.33e-3)


def test_the_cava_flows_upwards():
    line = VesselTree(
        "vena_cava",
        np.array([[0, 0, 0.05], [0, 0, 0.0]]),
        np.array([[0, 1]]),
        np.array([-1]),
        np.array([5e-3]),
    )
    found = skeleton_tree(*on_grid(line), "vena_cava")
    assert found.starts[0, 2] < found.ends[-1, 2]


def ring(radius: float, thick: float = 2e-3) -> tuple[np.ndarray, Grid]:
    grid = Grid.box((0.0, 0.0, 0.0), (80, 80, 24), 0.6e-3)
    x, y, z = np.meshgrid(*(grid.axis(a) for a in range(3)), indexing="ij")
    return np.hypot(np.hypot(x, y) - radius, z) < thick, grid


def test_a_loop_is_refused_by_name():
    with pytest.raises(InputError) as caught:
        skeleton_tree(*ring(15e-3), "hepatic_vein")
    message = str(caught.value)
    assert "vessels.groups.hepatic_vein" in message
    # 2 π 15 mm is 94 mm; steps between voxels make it up to 8 % longer
    assert 94 <= float(message.split("loop of ")[1].split()[0]) <= 102
    assert "\n" not in message


def test_vessels_that_touch_are_opened_at_their_thinnest_place():
    mask, grid = ring(3.4e-3, 1.2e-3)  # 21 mm around
    x, y, z = np.meshgrid(*(grid.axis(a) for a in range(3)), indexing="ij")
    mask |= (np.hypot(x + 3.4e-3, z) < 1.2e-3) & (y < 0)
    found = skeleton_tree(mask, grid, "artery")
    assert (found.parents < 0).sum() == 1


def test_parts_apart_make_a_forest():
    mask, grid = on_grid(forked())
    other = np.zeros_like(mask)
    other[5:9, 5:9, 10:-10] = True
    found = skeleton_tree(mask | other, grid, "portal_vein")
    assert (found.parents < 0).sum() == 2


def test_nothing_to_follow():
    grid = Grid.box((0.0, 0.0, 0.0), (8, 8, 8), 1e-3)
    with pytest.raises(InputError, match="no lumen"):
        skeleton_tree(np.zeros((8, 8, 8), bool), grid, "artery")
    with pytest.raises(InputError, match="no such vessels"):
        centre_lines([], "artery")
    dot = np.zeros((8, 8, 8), bool)
    dot[4, 4, 4] = True
    with pytest.raises(InputError, match="too short"):
        skeleton_tree(dot, grid, "artery")


def test_cutting_keeps_the_tree():
    tree = forked()
    fine, source = tree.cut(4e-3)
    assert np.linalg.norm(fine.ends - fine.starts, axis=1).max() <= 4e-3 + 1e-12
    np.testing.assert_array_equal(fine.radii, tree.radii[source])
    assert (fine.parents < 0).sum() == 1
    assert (fine.n_children == 0).sum() == 2
    points = np.random.default_rng(1).normal(scale=0.02, size=(200, 3))
    np.testing.assert_allclose(fine.signed_distance(points)[0], tree.signed_distance(points)[0], atol=1e-12)
    assert isinstance(tree.surface(), TriangleSurface)
