"""Blood along a tree: closed forms in a tube, mixing at junctions, conservation in any tree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermosim.anatomy.grid import Grid
from thermosim.anatomy.vessel_tree import VesselTree
from thermosim.errors import InputError
from thermosim.physics.blood_network import (
    BloodNetwork,
    entrance_lengths,
    film_coefficients,
    murray_flows,
)
from thermosim.physics.vessel_flow import Blood, mean_velocity, nusselt_auto, reynolds

BLOOD = 3.8e6
"""ρ c of round numbers [J/(m³ K)]."""


def tube(n=20, length=0.1, radius=2e-3):
    z = np.linspace(0.0, length, n + 1)
    nodes = np.stack([0 * z, 0 * z, z], axis=1)
    order = np.arange(n)
    return VesselTree(
        "portal_vein", nodes, np.stack([order, order + 1], axis=1), order - 1, np.full(n, radius)
    )


def fork(thin=2e-3, thick=3e-3):
    """A trunk of 4 mm radius that splits in two."""
    nodes = np.array([[0, 0, 0], [0, 0, 0.03], [0.02, 0, 0.05], [-0.02, 0, 0.05]], float)
    segments = np.array([[0, 1], [1, 2], [1, 3]])
    return VesselTree("portal_vein", nodes, segments, np.array([-1, 0, 0]), np.array([4e-3, thin, thick]))


def network(tree, flow=1e-6, to_root=False, inlet=37.0):
    return BloodNetwork(tree, to_root, murray_flows(tree, flow), inlet, BLOOD)


@pytest.mark.parametrize("to_root", [False, True])
def test_evenly_heated_blood_warms_linearly(to_root):
    stream = network(tube(), to_root=to_root)
    heat = np.full(20, 0.19)  # 3.8 W in all into 3.8 W/K
    mean, out = stream.temperatures(np.zeros(20), np.zeros(20), heat)
    expected = 37.0 + 0.05 * np.arange(1, 21)
    along = out[::-1] if to_root else out
    np.testing.assert_allclose(along, expected, rtol=1e-13)
    np.testing.assert_allclose(mean[::-1] if to_root else mean, expected - 0.025, rtol=1e-13)
    assert stream.outlet(out) == (pytest.approx(38.0), pytest.approx(3.8))


@pytest.mark.parametrize("number_of_units", [0.01, 1.0, 30.0])
def test_blood_approaches_an_even_wall_exponentially(number_of_units):
    """T(s) = T_w + (T_in − T_w) exp(−h P s / (ṁ c)), in whatever pieces the tube is cut."""
    stream = network(tube())
    conductance = np.full(20, number_of_units * 3.8 / 20)
    mean, out = stream.temperatures(conductance, np.full(20, 60.0), np.zeros(20))
    share = np.arange(1, 21) / 20
    np.testing.assert_allclose(out, 60.0 - 23.0 * np.exp(-number_of_units * share), rtol=1e-12)
    # what the tissue gives is what the blood gains
    assert conductance @ (60.0 - mean) == pytest.approx(stream.outlet(out)[1], rel=1e-9)


def test_wall_and_joule_heat_together():
    """C dT/dx = G (T_w − T) + J against a fine integration."""
    stream = network(tube(1))
    conductance, heat = np.array([5.0]), np.array([20.0])
    _, out = stream.temperatures(conductance, np.array([50.0]), heat)
    temperature, n = 37.0, 200_000
    for _ in range(n):
        temperature += (5.0 * (50.0 - temperature) + 20.0) / 3.8 / n
    assert out[0] == pytest.approx(temperature, abs=1e-4)  # explicit steps of 1e-5 of the length


def test_murray_splits_by_the_cube_of_the_radius():
    flows = murray_flows(fork(), 2e-6)
    assert flows[0] == 2e-6
    assert flows[1] / flows[2] == pytest.approx((2 / 3) ** 3)
    assert flows[1] + flows[2] == pytest.approx(2e-6, rel=1e-14)


def test_streams_are_mixed_by_their_flow():
    tree = fork()
    stream = network(tree, to_root=True)
    _, out = stream.temperatures(np.zeros(3), np.zeros(3), np.array([0.0, 1.0, 0.0]))
    q1, q2 = stream.flow[1], stream.flow[2]
    assert out[1] == pytest.approx(37.0 + 1.0 / (BLOOD * q1))
    assert out[0] == pytest.approx((q1 * out[1] + q2 * 37.0) / (q1 + q2))
    # the other way round both branches get the trunk's blood
    _, out = network(tree).temperatures(np.zeros(3), np.zeros(3), np.array([1.9, 0.0, 0.0]))
    np.testing.assert_allclose(out, 37.5)


def test_blood_of_branches_that_were_left_out_comes_fresh_and_leaves_at_the_junction():
    tree = fork()
    flows = murray_flows(tree, 1e-6)
    keep = tree.wide_enough(5e-3)
    pruned = tree.pruned(5e-3)
    assert pruned.n_segments == 2
    heat = np.array([0.0, 1.0])
    stream = BloodNetwork(pruned, True, flows[keep], 37.0, BLOOD)
    _, out = stream.temperatures(np.zeros(2), np.zeros(2), heat)
    assert stream.outlet(out)[1] == pytest.approx(1.0)
    stream = BloodNetwork(pruned, False, flows[keep], 37.0, BLOOD)
    _, out = stream.temperatures(np.zeros(2), np.zeros(2), np.array([1.0, 0.0]))
    assert stream.outlet(out)[1] == pytest.approx(1.0)  # part of it leaves at the junction


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), to_root=st.booleans())
def test_enthalpy_is_conserved_in_any_forest(seed, to_root):
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 30))
    parents = np.array([int(random.integers(-1, i)) if i else -1 for i in range(n)])
    nodes, segments = [np.zeros(3)], []
    for i in range(n):
        begin = 0 if parents[i] < 0 else segments[parents[i]][1]
        nodes.append(nodes[begin] + random.normal(size=3))
        segments.append((begin, len(nodes) - 1))
    tree = VesselTree("artery", np.array(nodes), np.array(segments), parents, random.uniform(1e-3, 4e-3, n))
    keep = tree.wide_enough(2.5e-3)
    flows = murray_flows(tree, 1e-6)
    if keep.any():
        tree, flows = tree.pruned(2.5e-3), flows[keep]
    stream = BloodNetwork(tree, to_root, flows, 37.0, BLOOD)
    m = tree.n_segments
    conductance = random.uniform(0, 2, m) * (random.uniform(size=m) < 0.7)
    wall, heat = random.uniform(30, 90, m), random.uniform(0, 1, m)
    mean, out = stream.temperatures(conductance, wall, heat)
    received = float(conductance @ (wall - mean) + heat.sum())
    # round-off of sums of temperatures of 100 °C times ρ c Q of some W/K
    assert stream.outlet(out)[1] == pytest.approx(received, rel=1e-8, abs=1e-8)
    assert mean.min() > 29.0


def test_blood_at_rest_is_refused():
    with pytest.raises(InputError, match=r"vessels\.groups\.portal_vein.*occluded"):
        network(tube(), flow=0.0)


def test_the_boundary_layer_starts_at_the_box_and_at_junctions():
    grid = Grid.box((0.0, 0.0, 0.05), (20, 20, 30), 2e-3)  # z from 20 to 80 mm
    begin, end = entrance_lengths(tube(), grid, to_root=False)
    first = int(np.flatnonzero(begin > 0)[0])
    assert begin[first] == pytest.approx(5e-3)
    assert end[first - 1] == pytest.approx(5e-3)
    assert tube().starts[first - 1, 2] <= 0.02  # the piece that crosses the border counts from its start
    np.testing.assert_allclose(np.diff(begin[first : first + 10]), 5e-3)
    back, _ = entrance_lengths(tube(), grid, to_root=True)
    assert np.argmax(back) < 5  # the other way it is longest below
    box = Grid.box((0.0, 0.0, 0.0), (60, 60, 60), 2e-3)
    for to_root in (False, True):
        begin, _ = entrance_lengths(fork(), box, to_root)
        np.testing.assert_allclose(begin, 0.0)


def test_film_follows_flow_and_diameter():
    tree, blood = tube(), Blood()
    flows = murray_flows(tree, 2e-6)
    grid = Grid.box((0.0, 0.0, 0.05), (60, 60, 60), 2e-3)
    entrance = entrance_lengths(tree, grid, False)
    film = film_coefficients(tree, flows, blood, "auto", entrance)
    assert np.all(np.diff(film) < 0)  # the layer grows
    re = reynolds(mean_velocity(2e-6, 4e-3), 4e-3, blood)
    wanted = nusselt_auto(re, blood.prandtl, 1.25, 2.5) * 0.52 / 4e-3
    assert film[1] == pytest.approx(wanted)
    laminar = film_coefficients(tree, flows, blood, "laminar", entrance)
    np.testing.assert_allclose(laminar, 3.66 * 0.52 / 4e-3)
    # through a glass of 2 mm inside: h of the stream, over the outer circumference
    glass = film_coefficients(tree, flows, blood, "laminar", entrance, inner_diameter=2e-3)
    np.testing.assert_allclose(glass, 3.66 * 0.52 / 2e-3 * 0.5)
    with pytest.raises(InputError, match=r"vessels\.groups\.portal_vein: Re is"):
        film_coefficients(tree, flows, blood, "gnielinski", entrance)


def test_transit_time_of_a_tube():
    grid = Grid.box((0.0, 0.0, 0.05), (20, 20, 60), 2e-3)
    area = np.pi * 4e-6
    assert network(tube(), flow=area * 0.02).transit_time(grid) == pytest.approx(0.1 / 0.02)
