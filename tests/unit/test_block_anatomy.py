"""The block of the bench: labels, tubes, tumours, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from thermosim.anatomy.block import BlockSource
from thermosim.anatomy.grid import Grid
from thermosim.build import build_problem, load_case
from thermosim.config import BlockAnatomyConfig, BlockTubeConfig, BlockTumorConfig
from thermosim.errors import InputError

GRID = Grid.box((0.0, 0.0, 0.0), (60, 60, 60), 1e-3)


def test_volumes_of_block_tube_and_tumour():
    config = BlockAnatomyConfig(
        size_mm=[40, 30, 20],
        center_mm=[2, 0, 0],
        tubes=[BlockTubeConfig("artery", 6.0, [-4.3, 0.2, -40], [-4.3, 0.2, 40])],
        tumors=[BlockTumorConfig("lesion", 12.0, [12, 0, 0])],
    )
    source = BlockSource(config)
    anatomy = source.rasterize(GRID, 3e-3)
    count = {s.name: int((anatomy.labels == s.label).sum()) for s in anatomy.structures}
    # whole cells of 1 mm³: some per cent of a round shape 6 to 12 cells wide
    assert count["lesion"] == pytest.approx(np.pi / 6 * 12**3, rel=0.03)
    assert count["artery"] == pytest.approx(np.pi * 9 * 60, rel=0.06)
    assert count["block"] == 40 * 30 * 20 - count["lesion"] - int(
        ((anatomy.labels == anatomy.structure("artery").label) & anatomy.liver_mask).sum()
    )
    assert anatomy.liver_mask.sum() == 40 * 30 * 20
    lumen = anatomy.lumens[0]
    assert lumen.group == "artery"
    np.testing.assert_allclose(lumen.radius[lumen.signed_distance < 2e-3], 3e-3)
    assert source.tumor_centers()["lesion"] == pytest.approx([0.012, 0, 0])
    assert set(source.display_surfaces()) == {"block", "artery", "lesion"}
    assert BlockSource(config).rasterize(GRID, 7e-3).lumens == ()  # too thin for geometry


def test_tubes_that_meet_are_a_tree():
    tubes = [
        BlockTubeConfig("portal_vein", 4.0, [0, 0, 0], [5, 0, 20]),  # listed before its parent
        BlockTubeConfig("portal_vein", 6.0, [0, 0, -40], [0, 0, 0]),
        BlockTubeConfig("portal_vein", 4.0, [0, 0, 0], [-5, 0, 20]),
    ]
    tree = BlockSource(BlockAnatomyConfig(tubes=tubes)).vessel_tree("portal_vein")
    assert tree.parents.tolist() == [-1, 0, 0]
    assert tree.radii.tolist() == [3e-3, 2e-3, 2e-3]


def test_without_a_tumour_layouts_count_from_the_middle():
    source = BlockSource(BlockAnatomyConfig(center_mm=[1, 2, 3]))
    assert source.tumor_centers()["block"] == pytest.approx([1e-3, 2e-3, 3e-3])
    problem, _ = build_problem(load_case("ex_vivo", ["anatomy=block", "grid.spacing_mm=4"]))
    assert problem.anatomy.tumor_surfaces == {}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"tubes": [BlockTubeConfig("a", 4.0, [0, 0, 0], [0, 0, 0])]}, ["no length", "'a'"]),
        ({"tumors": [BlockTumorConfig("t", 30.0, [40, 0, 0])]}, ["anatomy.tumors[t]", "5.0 mm out"]),
        ({"tumors": [BlockTumorConfig("block", 10.0)]}, ["'block'", "rename"]),
        (
            {
                "tubes": [
                    BlockTubeConfig("a", 4.0, [0, 0, 0], [0, 0, 20]),
                    BlockTubeConfig("a", 4.0, [9, 0, 0], [9, 0, 20], "water"),
                ]
            },
            ["one fluid", "water"],
        ),
        (
            {
                "tubes": [
                    BlockTubeConfig("a", 4.0, [0, 0, 0], [0, 0, 20]),
                    BlockTubeConfig("a", 4.0, [0, 0, 20], [0, 0, 0]),
                ]
            },
            ["ring"],
        ),
        (
            {
                "tubes": [
                    BlockTubeConfig("a", 4.0, [5, 0, -20], [0, 0, 0]),
                    BlockTubeConfig("a", 4.0, [-5, 0, -20], [0, 0, 0]),
                    BlockTubeConfig("a", 4.0, [0, 0, 0], [0, 0, 20]),
                ]
            },
            ["2 others end", "start_mm"],
        ),
    ],
)
def test_what_makes_no_sense_is_refused(config, words):
    with pytest.raises(InputError) as caught:
        BlockSource(BlockAnatomyConfig(**config))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("anatomy.size_mm=[0,1,1]", ["anatomy.size_mm", "positive"]),
        ("anatomy.tissue=cheese", ["anatomy.tissue='cheese'", "liver"]),
        (
            "anatomy.tubes=[{diameter_mm:0,start_mm:[0,0,0],end_mm:[0,0,9]}]",
            ["anatomy.tubes[0].diameter_mm=0"],
        ),
        ("anatomy.tubes=[{diameter_mm:4,start_mm:[0,0],end_mm:[0,0,9]}]", ["anatomy.tubes[0].start_mm"]),
        ("anatomy.tumors=[{diameter_mm:-4}]", ["diameter_mm=-4", "positive"]),
    ],
)
def test_values_out_of_range_are_refused_by_name(override, words):
    with pytest.raises(InputError) as caught:
        load_case("demo", ["anatomy=block", override])
    for word in words:
        assert word in str(caught.value)
