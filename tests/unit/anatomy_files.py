"""Small anatomies written to files by libraries other than the readers under test."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pyvista as pv
import SimpleITK as sitk
from numpy.typing import NDArray

TUMOR_CENTER_MM = np.array([31.0, -22.0, 13.0])
"""LPS: to the left, to the front, to the head of the liver's centre at the origin."""

TUMOR_RADIUS_MM = 9.0
LIVER_RADII_MM = np.array([60.0, 50.0, 40.0])


def liver_labels(points_lps_mm: NDArray[np.float64]) -> NDArray[np.uint8]:
    """1 in an ellipsoid liver, 2 in a small off-centre tumour, 3 in a straight vessel along z."""
    liver = ((points_lps_mm / LIVER_RADII_MM) ** 2).sum(axis=-1) < 1
    tumor = np.linalg.norm(points_lps_mm - TUMOR_CENTER_MM, axis=-1) < TUMOR_RADIUS_MM
    vessel = np.hypot(points_lps_mm[..., 0] + 20, points_lps_mm[..., 1]) < 4
    labels = np.where(liver, 1, 0)
    labels = np.where(vessel & (np.abs(points_lps_mm[..., 2]) < 45), 3, labels)
    return np.where(tumor, 2, labels).astype(np.uint8)


def write_liver(
    path: Path,
    direction_lps: NDArray[np.float64],
    spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0),
    library: str = "nibabel",
) -> Path:
    """The little liver as an image whose axes have the given directions (columns, LPS)."""
    spacing = np.asarray(spacing_mm)
    half_box = np.abs(np.linalg.inv(direction_lps)) @ np.array([66.0, 56.0, 50.0])
    shape = np.ceil(2 * half_box / spacing).astype(int) + 1
    origin = -direction_lps @ (spacing * (shape - 1) / 2)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    labels = liver_labels(origin + (index * spacing) @ direction_lps.T)
    if library == "nibabel":
        affine = np.eye(4)
        affine[:3, :3] = np.diag([-1, -1, 1]) @ direction_lps @ np.diag(spacing)
        affine[:3, 3] = np.diag([-1, -1, 1]) @ origin
        nib.save(nib.Nifti1Image(labels, affine), path)
    else:
        image = sitk.GetImageFromArray(labels.transpose(2, 1, 0))
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(origin.tolist())
        image.SetDirection(direction_lps.ravel().tolist())
        sitk.WriteImage(image, str(path), useCompression=True)
    return path


def write_surfaces(folder: Path, ending: str = "vtk", binary: bool = True) -> Path:
    """The little liver as meshes liver, tumor and vessel [mm, LPS]."""
    folder.mkdir(parents=True, exist_ok=True)
    liver = pv.ParametricEllipsoid(*LIVER_RADII_MM, u_res=60, v_res=60, w_res=20)
    tumor = pv.Icosphere(radius=TUMOR_RADIUS_MM, center=TUMOR_CENTER_MM, nsub=4)
    vessel = pv.Cylinder(center=(-20, 0, 0), direction=(0, 0, 1), radius=4, height=90, resolution=48)
    for name, mesh in (("liver", liver), ("tumor", tumor), ("vessel", vessel)):
        path = folder / f"{name}.{ending}"
        mesh.triangulate().clean().save(path, **({} if ending == "obj" else {"binary": binary}))
    return folder
