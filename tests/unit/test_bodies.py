"""Lines through bodies, against closed forms: spheres, boxes, tubes, whatever the source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import pyvista as pv

from thermosim.anatomy.anatomy import Structure, TriangleSurface
from thermosim.anatomy.block import BlockSource
from thermosim.anatomy.bodies import ShapeBody, Stretch, SurfaceBody, TreeBody, crossings, merged
from thermosim.anatomy.phantom import PhantomSource
from thermosim.anatomy.vessel_tree import VesselTree
from thermosim.config import (
    BlockAnatomyConfig,
    BlockTubeConfig,
    BlockTumorConfig,
    PhantomAnatomyConfig,
    PhantomTumorConfig,
)

THING = Structure(1, "thing", "liver", "risk")


def cube(edge: float = 0.04) -> SurfaceBody:
    """A cube around the origin, its faces cut along diagonals that lines may run through."""
    box = pv.Box(bounds=(-1, 1) * 3).triangulate().clean()  # in single precision
    points = 0.5 * edge * np.asarray(box.points, float)
    return SurfaceBody(THING, TriangleSurface(points, np.asarray(box.regular_faces, np.int64)))


def tube(radius: float = 0.004, half: float = 0.1) -> VesselTree:
    """One vessel along z."""
    nodes = np.array([[0.0, 0.0, -half], [0.0, 0.0, half]])
    return VesselTree("vein", nodes, np.array([[0, 1]]), np.array([-1]), np.array([radius]))


def line(*points: tuple[float, float, float]) -> list[np.ndarray]:
    return [np.array(point, float) for point in points]


@pytest.mark.parametrize(
    "offset",
    [(0.003, 0.007), (0.0, 0.0), (0.01, 0.01), (0.0, 0.013)],
    ids=["plain", "centre", "diagonal", "middle"],
)
def test_a_line_through_faces_edges_and_corners_crosses_a_cube_twice(offset):
    body = cube()
    start, end = line((*offset, -0.1), (*offset, 0.1))
    assert crossings(body.surface, start, end) == pytest.approx([0.08, 0.12], abs=1e-12)
    (inside,) = body.stretches(start, end)
    assert (inside.start, inside.end) == pytest.approx((0.08, 0.12), abs=1e-12)


def test_a_line_along_the_cubes_space_diagonal_has_its_length():
    body = cube()
    start, end = line((-0.05, -0.05, -0.05), (0.05, 0.05, 0.05))
    (inside,) = body.stretches(start, end)
    assert inside.length == pytest.approx(0.04 * np.sqrt(3), abs=1e-12)


def test_lines_in_random_directions_cross_a_closed_surface_an_even_number_of_times():
    ball = pv.Sphere(radius=0.03, theta_resolution=25, phi_resolution=25).triangulate()
    surface = TriangleSurface(np.asarray(ball.points, float), np.asarray(ball.regular_faces, np.int64))
    random = np.random.default_rng(4)
    for _ in range(200):
        start = surface.points[random.integers(len(surface.points))] + 0.1 * random.normal(size=3)
        end = surface.points[random.integers(len(surface.points))]  # through a corner of the mesh
        assert len(crossings(surface, start, end)) % 2 == 0


def test_lines_that_begin_or_end_inside_are_cut_there():
    body = cube()
    start, end = line((0.0, 0.001, 0.002), (0.1, 0.001, 0.002))
    (inside,) = body.stretches(start, end)
    assert (inside.start, inside.end) == pytest.approx((0.0, 0.02), abs=1e-12)
    assert body.stretches(*line((0.03, 0, 0), (0.1, 0, 0))) == []


def test_distance_to_a_cubes_face_edge_and_corner_is_exact():
    body = cube()
    for (start, end), wanted in (
        (line((0.025, -0.1, 0.001), (0.025, 0.1, 0.001)), 0.005),  # beside a face
        (line((0.023, 0.024, -0.1), (0.023, 0.024, 0.1)), 0.005),  # along an edge
        (line((0.05, 0.02, 0.02), (0.1, 0.02, 0.02)), 0.03),  # its end before a corner
    ):
        gap, _ = body.distance(start, end)
        assert gap == pytest.approx(wanted, abs=1e-12)
    gap, place = body.distance(*line((-0.1, 0, 0), (0.1, 0, 0)))
    assert gap == 0.0
    assert np.abs(place).max() <= 0.02


@pytest.mark.parametrize("kind", ["surface", "shape"])
def test_nearness_reaches_beyond_the_body(kind):
    body = cube()
    if kind == "shape":
        body = ShapeBody(THING, BlockSource(BlockAnatomyConfig(size_mm=[40.0] * 3))._box_distance)
    start, end = line((0.021, 0.002, -0.1), (0.021, 0.002, 0.1))
    assert body.stretches(start, end) == []
    (near,) = body.stretches(start, end, within=0.002)
    beyond = np.sqrt(0.002**2 - 0.001**2)  # around the face's rim
    assert (near.start, near.end) == pytest.approx((0.08 - beyond, 0.12 + beyond), abs=1e-6)


def test_a_vessel_is_passed_by_a_chord_of_its_circle():
    body = TreeBody(replace(THING, role="vessel"), tube())
    start, end = line((-0.05, 0.003, 0.0), (0.05, 0.003, 0.0))
    (inside,) = body.stretches(start, end)
    assert inside.length == pytest.approx(2 * np.sqrt(0.004**2 - 0.003**2), abs=1e-9)
    assert body.diameter(np.array([[0.0, 0.003, 0.0]])) == pytest.approx([0.008])
    # beside it by 0.5 mm: no axis in it, but a needle of 0.75 mm touches it
    start, end = line((-0.05, 0.0045, 0.0), (0.05, 0.0045, 0.0))
    assert body.stretches(start, end) == []
    assert len(body.stretches(start, end, within=0.75e-3)) == 1
    gap, place = body.distance(start, end)
    assert gap == pytest.approx(0.5e-3, abs=1e-12)
    assert place == pytest.approx([0.0, 0.0045, 0.0], abs=1e-9)


def test_the_thinnest_graze_of_a_vessel_is_seen():
    body = TreeBody(THING, tube())
    start, end = line((-0.05, 0.004 - 1e-9, 0.0), (0.05, 0.004 - 1e-9, 0.0))
    (inside,) = body.stretches(start, end)  # a chord of 6 µm, between two samples of 100 µm
    assert inside.length < 1e-5


def test_the_diameter_of_a_meshed_vessel_is_that_of_its_wall():
    wall = tube(0.005, 0.03).surface(48)
    body = SurfaceBody(THING, wall)
    at = np.array([[0.0, 0.0, 0.0], [0.0, 0.003, 0.01]])
    assert body.diameter(at) == pytest.approx([0.01, 0.01], rel=0.05)  # facets and samples of 0.3 mm


def test_stretches_that_nearly_touch_are_one():
    pieces = [Stretch(0.03, 0.04), Stretch(0.0, 0.01), Stretch(0.0105, 0.02)]
    assert merged(pieces, 1e-3) == [Stretch(0.0, 0.02), Stretch(0.03, 0.04)]
    assert len(merged(pieces)) == 3


def test_a_block_gives_its_box_its_tubes_and_its_balls():
    source = BlockSource(
        BlockAnatomyConfig(
            size_mm=[60.0, 80.0, 100.0],
            center_mm=[5.0, 0.0, 0.0],
            tubes=[BlockTubeConfig("portal_vein", 6.0, [10.0, -90.0, 0.0], [10.0, 90.0, 0.0])],
            tumors=[BlockTumorConfig("tumor", 20.0, [-5.0, 0.0, 0.0])],
        )
    )
    start, end = line((-0.1, 0, 0), (0.1, 0, 0))
    found = {body.structure.name: body.stretches(start, end) for body in source.bodies()}
    assert {name: [s.length for s in parts] for name, parts in found.items()} == {
        "block": pytest.approx([0.06]),
        "portal_vein": pytest.approx([0.006]),
        "tumor": pytest.approx([0.02]),
    }
    assert found["block"][0].start == pytest.approx(0.075)  # LPS: from the patient's right


def test_the_phantoms_bodies_are_its_structures():
    source = PhantomSource(
        PhantomAnatomyConfig(n_terminals=12, tumors=[PhantomTumorConfig(center_mm=[-45.0, 0.0, 10.0])])
    )
    bodies = {body.structure.name: body for body in source.bodies()}
    assert list(bodies) == ["liver", "gallbladder", "portal_vein", "hepatic_vein", "vena_cava", "tumor"]
    start, end = line((-0.3, 0.0, 0.01), (-0.045, 0.0, 0.01))
    (liver,) = bodies["liver"].stretches(start, end)
    entry = start + liver.start * np.array([1.0, 0, 0])
    assert source.liver.at(entry[None])[0] == pytest.approx(0.0, abs=1e-9)
    (tumor,) = bodies["tumor"].stretches(start, end)
    assert tumor.length == pytest.approx(0.015, rel=0.1)  # irregularity 0.08
