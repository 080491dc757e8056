"""A plan in a label map: the same whatever the axes of the image, left and right never exchanged."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from plan_case import limit, needle, of
from plan_case import plan as plan_in

from thermosim.anatomy.label_map import LabelMapSource
from thermosim.config import LabelMapAnatomyConfig, StructureConfig
from thermosim.plan.anatomy_rules import anatomy_rules
from thermosim.plan.needle_rules import needle_rules

SEGMENTS = {
    "1": StructureConfig(name="body", tissue="fat", role="background"),
    "2": StructureConfig(name="liver", tissue="liver", role="organ"),
    "3": StructureConfig(name="tumor", tissue="tumor", role="tumor"),
    "4": StructureConfig(name="rib_right_8", tissue="background", role="background"),
    "5": StructureConfig(name="hepatic_vein", tissue="blood", role="vessel"),
}
SPACING = 2.0
HALF = np.array([84.0, 70.0, 50.0])
"""Half of the image [mm]; the body ends 14 mm before it, to right, left, front and back."""


def layers(points: np.ndarray) -> np.ndarray:
    """Labels of points [mm, LPS]: a rib and a vein on the patient's right, a tumour left of the middle."""
    x, y, z = np.moveaxis(points, -1, 0)
    labels = np.zeros(points.shape[:-1], np.uint8)
    labels[(np.abs(x) < 70) & (np.abs(y) < 56)] = 1
    labels[(x / 50) ** 2 + (y / 40) ** 2 + (z / 34) ** 2 < 1] = 2
    labels[(np.hypot(x + 30, y) < 5) & (np.abs(z) < 20)] = 5
    labels[np.linalg.norm(points - [12.0, 0, 0], axis=-1) < 10] = 3
    labels[(np.abs(x + 60) < 4) & (np.abs(y) < 30) & (np.abs(z) < 8)] = 4
    return labels


def source(path: Path, flips: tuple[int, int, int]) -> LabelMapSource:
    """The image with its axes along LPS or against it."""
    shape = np.round(2 * HALF / SPACING).astype(int)
    signs = np.array(flips)
    origin = -signs * (HALF - SPACING / 2)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    labels = layers(origin + SPACING * signs * index)
    to_ras = np.diag([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = to_ras @ np.diag(SPACING * signs)
    affine[:3, 3] = to_ras @ origin
    nib.save(nib.Nifti1Image(labels, affine), path)
    return LabelMapSource(LabelMapAnatomyConfig(path=str(path), segments=SEGMENTS))


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1)], ids=["LPS", "RAS"])
def test_needles_from_the_right_meet_the_rib_and_the_vein(tmp_path, flips):
    anatomy = source(tmp_path / "patient.nii.gz", flips)
    checked = plan_in(
        needle("from_right", [22, 0, 0], [-72, 0, 0]),
        needle("from_left", [2, 0, 0], [75, 0, 0]),
        bodies=anatomy.bodies(),
        source=anatomy,
        skin=["body"],
        vessel_diameter_mm=limit(3, 6),
        skin_distance_mm=limit(3, 20),
        depth_mm=limit(80, 250),
        unknown_path_mm=limit(0, 30),
    )
    results = [*needle_rules(checked), *anatomy_rules(checked)]

    def found(key: str) -> dict[str, tuple[str, float]]:
        return {f.subject: (f.verdict, f.value) for f in of(results, key).findings}

    voxel = 1.0  # half of one: where a surface lies between two voxels
    ribs = found("organs.ribs")
    assert ribs["from_right"] == ("fail", pytest.approx(-8.0, abs=voxel))
    assert ribs["from_left"][0] == "pass"
    assert ribs["from_left"][1] > 50
    veins = found("vessel_diameter_mm")
    drawn = np.sqrt(4 * 16 * SPACING**2 / np.pi)  # its voxels make a square of 4 x 4
    assert veins["from_right"] == ("fail", pytest.approx(drawn, abs=0.6))
    assert veins["from_left"] == ("pass", 0.0)
    skin = found("skin_distance_mm")
    assert skin["from_right"] == ("pass", pytest.approx(2.0, abs=voxel))
    assert skin["from_left"] == ("warn", pytest.approx(5.0, abs=voxel))
    depth = found("depth_mm")
    assert depth["from_right"] == ("warn", pytest.approx(92.0, abs=voxel))
    assert depth["from_left"] == ("pass", pytest.approx(68.0, abs=voxel))
    liver = found("liver_before_tumor_mm")
    assert liver["from_right"][1] == pytest.approx(52.0, abs=2 * voxel)
    assert liver["from_left"][1] == pytest.approx(28.0, abs=2 * voxel)
    assert found("capsule_entries") == {"from_right": ("pass", 1.0), "from_left": ("pass", 1.0)}
    assert found("unknown_path_mm") == {"from_right": ("pass", 0.0), "from_left": ("pass", 0.0)}


def test_a_way_that_leaves_the_image_is_said(tmp_path):
    anatomy = source(tmp_path / "patient.nii.gz", (1, 1, 1))
    bodies = tuple(body for body in anatomy.bodies() if body.structure.name != "body")
    checked = plan_in(
        needle("from_left", [2, 0, 0], [100, 0, 0]),
        bodies=bodies,
        source=anatomy,
        unknown_path_mm=limit(0, 30),
    )
    (finding,) = of(anatomy_rules(checked), "unknown_path_mm").findings
    assert (finding.verdict, finding.value) == ("warn", pytest.approx(16.0, abs=1e-6))
