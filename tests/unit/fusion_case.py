"""A made-up abdomen on CT before and after treatment, with a known motion between the two."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from thermosim.anatomy.grid import Grid
from thermosim.report.nifti import write_zone

LIVER_CENTER = np.array([-0.040, -0.005, 0.0])
LIVER_RADII = np.array([0.070, 0.055, 0.050])
TUMOR_CENTER = LIVER_CENTER + np.array([-0.012, -0.010, 0.008])
TUMOR_RADIUS = 0.010
ZONE_CENTER = TUMOR_CENTER + np.array([0.002, -0.001, 0.001])
ZONE_RADIUS = 0.018
TURN = Rotation.from_euler("xyz", [3, -4, 7], degrees=True).as_matrix()
SHIFT = np.array([0.008, -0.011, 0.013])


def cells(grid: Grid) -> np.ndarray:
    return grid.points(np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1))


def hounsfield(points: np.ndarray) -> np.ndarray:
    """A torso of fat, a liver with 24 vessels and cysts, and a spine, at LPS points [m]."""
    values = np.full(points.shape[:-1], -90.0)
    values[(points[..., 0] / 0.15) ** 2 + (points[..., 1] / 0.1) ** 2 > 1] = -1000.0
    within = liver(points)
    values[within] = 100.0
    random = np.random.default_rng(1)
    for _ in range(24):
        center = LIVER_CENTER + random.normal(size=3) * 0.45 * LIVER_RADII
        ball = np.linalg.norm(points - center, axis=-1) < random.uniform(0.004, 0.009)
        values[ball & within] = random.choice([40.0, 170.0, 190.0])
    values[(points[..., 0] ** 2 + (points[..., 1] - 0.06) ** 2) < 0.018**2] = 300.0
    return values


def liver(points: np.ndarray) -> np.ndarray:
    return np.sum(((points - LIVER_CENTER) / LIVER_RADII) ** 2, axis=-1) < 1


def to_after(points: np.ndarray) -> np.ndarray:
    return (points - LIVER_CENTER) @ TURN.T + LIVER_CENTER + SHIFT


def to_before(points: np.ndarray) -> np.ndarray:
    return (points - LIVER_CENTER - SHIFT) @ TURN + LIVER_CENTER


BEFORE = Grid((72, 60, 40), (4e-3, 3.6e-3, 4e-3), (-0.142, -0.106, -0.078))
AFTER = Grid((78, 62, 42), (3.7e-3, 3.5e-3, 4e-3), (-0.135, -0.113, -0.07))


def cts(noise: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(2)
    before = hounsfield(cells(BEFORE))
    before[np.linalg.norm(cells(BEFORE) - TUMOR_CENTER, axis=-1) < TUMOR_RADIUS] = 65.0
    points = to_before(cells(AFTER))
    after = hounsfield(points)
    after[np.linalg.norm(points - ZONE_CENTER, axis=-1) < ZONE_RADIUS] = 50.0
    return tuple(
        np.round(image + random.normal(0, noise, image.shape)).astype(np.int16) for image in (before, after)
    )  # type: ignore[return-value]


def ball_mask(grid: Grid, center: np.ndarray, radius: float, moved: bool = False) -> np.ndarray:
    points = cells(grid)
    return np.linalg.norm((to_before(points) if moved else points) - center, axis=-1) < radius


def around(center: np.ndarray, size: float, spacing: tuple[float, float, float]) -> Grid:
    shape = tuple(int(np.ceil(size / h)) for h in spacing)
    origin = tuple(float(c - 0.5 * (n - 1) * h) for c, n, h in zip(center, shape, spacing, strict=True))
    return Grid(shape, spacing, origin)


def exact_margin() -> float:
    """Thinnest margin of a ball in a ball."""
    return float(ZONE_RADIUS - TUMOR_RADIUS - np.linalg.norm(np.asarray(ZONE_CENTER) - TUMOR_CENTER))


def write_case(folder: Path) -> dict[str, Path]:
    """CTs and masks as files, and landmarks that are right to 0.3 mm."""
    files = {}
    for name, values, grid in zip(("before", "after"), cts(), (BEFORE, AFTER), strict=True):
        files[f"ct_{name}"] = folder / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(values, grid.affine_ras_mm()), files[f"ct_{name}"])
    spots = {
        "tumor": (around(TUMOR_CENTER, 0.04, (1e-3, 1e-3, 1.5e-3)), TUMOR_CENTER, TUMOR_RADIUS, False),
        "ablation": (
            around(to_after(ZONE_CENTER), 0.06, (0.9e-3, 0.9e-3, 2e-3)),
            ZONE_CENTER,
            ZONE_RADIUS,
            True,
        ),
        "ablation_in_place": (around(ZONE_CENTER, 0.06, (1e-3, 1e-3, 1e-3)), ZONE_CENTER, ZONE_RADIUS, False),
    }
    for name, (grid, center, radius, moved) in spots.items():
        files[name] = folder / f"{name}.nii.gz"
        write_zone(files[name], ball_mask(grid, center, radius, moved), grid)
    files["liver"], files["liver_after"] = folder / "liver.nii.gz", folder / "liver_after.nii.gz"
    write_zone(files["liver"], liver(cells(BEFORE)), BEFORE)
    write_zone(files["liver_after"], liver(to_before(cells(AFTER))), AFTER)
    random = np.random.default_rng(4)
    places = LIVER_CENTER + 0.035 * np.array(list(itertools.product((-1, 1), repeat=3)))
    moved_places = to_after(places) + random.normal(0, 0.3e-3, places.shape)
    rows = ["name,before_x,before_y,before_z,after_x,after_y,after_z"]
    for number, pair in enumerate(np.hstack([places, moved_places])):
        rows.append(f"place {number}," + ",".join(f"{1e3 * x:.3f}" for x in pair))
    files["landmarks"] = folder / "landmarks.csv"
    files["landmarks"].write_text("\n".join(rows) + "\n")
    return files
