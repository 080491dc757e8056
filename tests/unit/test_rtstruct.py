"""Contours filled on voxels, against closed forms and a real structure set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_cases import write_rtstruct, write_series
from numpy.typing import NDArray

from thermosim.anatomy.clinical_files import read_mask, read_segments
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.label_map import LabelMapSource
from thermosim.config import LabelMapAnatomyConfig, StructureConfig
from thermosim.errors import InputError

SHAPE = (64, 56, 12)
CENTER = np.array([0.0, -130.0, 415.0])


def circle(
    radius: float, z: float, center: NDArray[np.float64] = CENTER, n: int = 180
) -> NDArray[np.float64]:
    """A circle's points [mm], corners outside so that the polygon has the circle's area."""
    angles = 2 * np.pi * np.arange(n) / n
    reach = radius * np.sqrt(2 * np.pi / n / np.sin(2 * np.pi / n))
    return np.stack(
        [CENTER[0] + reach * np.cos(angles), CENTER[1] + reach * np.sin(angles), np.full(n, z)], axis=1
    )


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct")
    write_series(folder, np.zeros(SHAPE, np.int16))
    return folder


def test_a_ring_has_its_area_and_place(ct: Path, tmp_path: Path) -> None:
    path = tmp_path / "structures.dcm"
    contours = [c for z in (410.0, 412.5, 415.0) for c in (circle(15, z), circle(6, z))]
    write_rtstruct(path, {"ring": contours, "core": [circle(5, 412.5)]})
    ring = read_mask(path, "ring", ct=ct)
    assert ring.mask.any(axis=(0, 1)).nonzero()[0].tolist() == [4, 5, 6]
    area = ring.mask[:, :, 5].sum() * 0.7 * 0.8
    assert area == pytest.approx(np.pi * (15**2 - 6**2), rel=0.01)
    middle = 1e3 * ring.grid.points(np.argwhere(ring.mask)).mean(axis=0)
    assert middle == pytest.approx([0.0, -130.0, 412.5], abs=0.1)
    core = read_mask(path, "core", ct=ct)
    assert not (core.mask & ring.mask).any()
    assert core.mask.any(axis=(0, 1)).nonzero()[0].tolist() == [5]
    assert len(read_segments(path, ct=ct).layers) == 1


def test_slices_between_contours_are_interpolated(ct: Path, tmp_path: Path) -> None:
    path = tmp_path / "structures.dcm"
    depths = np.arange(402.5, 427.6, 5.0)  # every second slice
    radii = np.sqrt(15.0**2 - (depths - 415.0) ** 2)
    write_rtstruct(path, {"ball": [circle(r, z) for r, z in zip(radii, depths, strict=True)]})
    ball = read_mask(path, ct=ct)
    volume = ball.mask.sum() * ball.grid.cell_volume
    assert volume == pytest.approx(4 / 3 * np.pi * 0.015**3, rel=0.03)
    areas = ball.mask.sum(axis=(0, 1))
    between = np.sqrt(areas[2:10:2] * 0.7 * 0.8 / np.pi)  # slices 2, 4, .. lie between two contours
    assert between == pytest.approx(0.5 * (radii[:-1] + radii[1:])[: len(between)], rel=0.02)


def test_a_wide_gap_stays_empty(ct: Path, tmp_path: Path) -> None:
    path = tmp_path / "structures.dcm"
    depths = (400.0, 402.5, 405.0, 420.0, 422.5)
    write_rtstruct(path, {"two parts": [circle(8, z) for z in depths]})
    mask = read_mask(path, ct=ct).mask
    assert mask.any(axis=(0, 1)).nonzero()[0].tolist() == [0, 1, 2, 8, 9]


def test_a_real_structure_set_has_its_volume(data_dir: Path) -> None:
    path = data_dir / "importers" / "rtstruct" / "pydicom_rtstruct.dcm"
    grid = Grid((110, 110, 40), (0.004, 0.004, 0.002), (-0.218, -0.218, -0.230))
    body = read_mask(path, grid=grid)
    assert body.name == "patient"
    assert body.mask.sum() * grid.cell_volume == pytest.approx(0.4 * 0.3 * 0.03, rel=1e-9)
    with pytest.raises(InputError, match="contours but no voxels; name the CT"):
        read_mask(path)


def test_what_does_not_fit_is_refused(ct: Path, tmp_path: Path) -> None:
    path = tmp_path / "structures.dcm"
    write_rtstruct(path, {"ball": [circle(8, 410.0)]}, frame="1.2.3.4")
    with pytest.raises(InputError, match="frame of reference is not that of the CT"):
        read_mask(path, ct=ct)
    write_rtstruct(path, {"ball": [circle(8, 2410.0)]})
    with pytest.raises(InputError, match="none of its contours lies on the image"):
        read_mask(path, ct=ct)
    slanted = circle(8, 410.0)
    slanted[:, 2] += 0.3 * (slanted[:, 0] - CENTER[0])
    write_rtstruct(path, {"ball": [slanted]})
    with pytest.raises(InputError, match=r"slices by 4\.8\d mm"):
        read_mask(path, ct=ct)


def test_an_anatomy_from_contours_on_their_ct(ct: Path, tmp_path: Path) -> None:
    path = tmp_path / "structures.dcm"
    depths = np.arange(402.5, 427.6, 2.5)
    write_rtstruct(path, {"GTV": [circle(np.sqrt(15.0**2 - (z - 415.0) ** 2), z) for z in depths]})
    segments = {"GTV": StructureConfig("tumor", "tumor")}
    source = LabelMapSource(LabelMapAnatomyConfig(path=str(path), ct_path=str(ct), segments=segments))
    assert 1e3 * source.tumor_centers()["GTV"] == pytest.approx(CENTER, abs=0.2)  # mm
    with pytest.raises(InputError, match=r"name the CT it was drawn on as well \(anatomy.ct_path"):
        LabelMapSource(LabelMapAnatomyConfig(path=str(path), segments=segments))
