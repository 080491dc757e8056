"""A patient given as a label map: NIfTI, NRRD, a Slicer segmentation, DICOM SEG or RTSTRUCT."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyvista as pv
from numpy.typing import NDArray
from scipy import ndimage

from thermosim.anatomy.anatomy import Anatomy, Structure, TriangleSurface
from thermosim.anatomy.bodies import Body, bodies_of
from thermosim.anatomy.centre_lines import centre_lines
from thermosim.anatomy.clinical_files import read_segments
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.label_image import LabelImage
from thermosim.anatomy.layout_on_grid import display_surfaces, lay_on_grid
from thermosim.anatomy.mesh import smooth, volume, with_volume
from thermosim.anatomy.rasterize import Solid
from thermosim.anatomy.surfaces import BACKGROUND, check_structures, structure_from, tumor_centers
from thermosim.anatomy.vessel_tree import VesselTree
from thermosim.config import LabelMapAnatomyConfig, StructureConfig
from thermosim.errors import InputError

PASS_BAND = 0.03
"""Of the windowed sinc filter, in units of voxels: takes off stairs, keeps features of a few voxels."""

VESSEL_PASS_BAND = 0.06
"""Vessels are a few voxels thick, so less is filtered."""

VESSEL_CLOSING = 0.01
"""Vessels that liver or tumour surrounds within this distance [m] belong to the liver's inside."""

MAXIMUM_NAMED = 10


@dataclass(frozen=True)
class _Label:
    """One label of the image: its layer, value and, if the file has one, name."""

    layer: int
    value: int
    name: str | None

    def __str__(self) -> str:
        return f"{self.value} ({self.name})" if self.name else str(self.value)


class LabelMapSource:
    """A label map in any orientation and spacing as an `AnatomySource`.

    Each label's voxels become a closed surface (marching cubes at one half, stairs taken off by a
    windowed sinc filter in units of voxels, moved along its normals to keep the voxels' volume),
    so that all that follows is finer than a voxel. Segments of a Slicer segmentation may overlap:
    the role decides (vessel, tumor, risk, organ), then the later entry of `segments`.

    Raises
    ------
    InputError : the file is damaged or no label map; labels that `segments` does not list, or listed
        ones that are not there (unless ``unlisted: background``); a listed tumour that is not there; no
        tumour at all.
    """

    def __init__(self, config: LabelMapAnatomyConfig) -> None:
        if config.unlisted not in ("error", "background"):
            raise InputError(f"unlisted {config.unlisted!r}, must be error or background")
        if config.path in ("", "???"):
            raise InputError("no label map was named; set anatomy.path to a .nii.gz, .nrrd or .dcm file")
        segments = dict(config.segments)
        check_structures(segments)
        image = read_segments(config.path, ct=config.ct_path)
        self._grid = image.grid
        self._background = _background(segments.pop("0", None))
        chosen, notes = _choose(segments, _labels_in(image), config.unlisted)
        masks = {name: _mask(image, label) for name, (_, label) in chosen.items()}
        structures = [structure_from(c, key, i + 1) for i, (key, (c, _)) in enumerate(chosen.items())]
        self._solids = []
        liver = _whole_liver(structures, list(masks.values()), image.grid)
        for structure, mask in zip(structures, masks.values(), strict=True):
            if structure.role == "organ" and liver is not None:
                # The first organ is also what lies between its vessels; its own voxels are within.
                self._solids.append(Solid(structure, _surface(liver, image.grid, PASS_BAND)))
                liver = None
            else:
                band = VESSEL_PASS_BAND if structure.role == "vessel" else PASS_BAND
                self._solids.append(Solid(structure, _surface(mask, image.grid, band)))
        self._notes = tuple(notes)

    @property
    def structures(self) -> tuple[Structure, ...]:
        """All structures, the background (label 0) first."""
        return (self._background, *(solid.structure for solid in self._solids))

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings met while reading."""
        return self._notes

    def extent(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners of the LPS box around the image [m]."""
        ends = np.stack(np.meshgrid(*([-0.5, n - 0.5] for n in self._grid.shape)), axis=-1).reshape(-1, 3)
        corners = self._grid.points(ends)
        return corners.min(axis=0), corners.max(axis=0)

    def tumor_centers(self) -> dict[str, NDArray[np.float64]]:
        """Centre of each tumour's volume [m, LPS], by name."""
        return tumor_centers(self._solids)

    def rasterize(self, grid: Grid, minimum_vessel_diameter: float) -> Anatomy:
        """Lay the labels on an isotropic, axis-aligned grid."""
        return lay_on_grid(
            self._background, self._solids, grid, minimum_vessel_diameter, self.extent(), self._notes
        )

    def vessel_tree(self, group: str) -> VesselTree:
        """Centre lines of one group of vessels, skeletonised."""
        return centre_lines([s.surface for s in self._solids if s.structure.vessel_group == group], group)

    def bodies(self) -> tuple[Body, ...]:
        """Each structure's surface as a body."""
        return bodies_of(self._solids)

    def field_of_view(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """The box around the image."""
        return self.extent()

    def display_surfaces(self) -> dict[str, TriangleSurface]:
        """All structures as light surfaces, by name."""
        return display_surfaces(self._solids)


def _background(config: StructureConfig | None) -> Structure:
    if config is None:
        return BACKGROUND
    if config.role != "background":
        raise InputError(f"label 0 is the background and cannot have the role {config.role!r}")
    return replace(BACKGROUND, tissue=config.tissue)


def _labels_in(image: LabelImage) -> list[_Label]:
    """Labels that occur in the image."""
    found = []
    for number, layer in enumerate(image.layers):
        present = np.zeros(65536, bool)
        for k in range(layer.shape[2]):
            present[layer[:, :, k]] = True
        names = {s.value: s.name for s in image.segments if s.layer == number}
        found += [_Label(number, int(v), names.get(int(v))) for v in np.flatnonzero(present) if v]
    return found


def _choose(
    segments: dict[str, StructureConfig], present: list[_Label], unlisted: str
) -> tuple[dict[str, tuple[StructureConfig, _Label]], list[str]]:
    """Which label each entry of `segments` means, by name first and else by value."""
    chosen: dict[str, tuple[StructureConfig, _Label]] = {}
    notes = []
    for key, config in segments.items():
        matches = [x for x in present if x.name == key] or [x for x in present if str(x.value) == key]
        if len(matches) > 1:
            raise InputError(f"{key!r} means several segments: {_named(matches)}; use their names")
        if matches:
            if any(label == matches[0] for _, label in chosen.values()):
                raise InputError(f"segment {matches[0]} is listed twice, by name and by value; keep one")
            chosen[key] = (config, matches[0])
        elif config.role == "tumor":
            raise InputError(f"the tumour {key!r} is not in the label map; it holds {_named(present)}")
        elif unlisted == "error":
            raise InputError(
                f"anatomy.segments.{key} is not in the label map; it holds {_named(present)}; correct it, "
                "leave it out, or set anatomy.unlisted=background"
            )
        else:
            notes.append(f"{key}: not in the label map")
    taken = {label for _, label in chosen.values()}
    left = [label for label in present if label not in taken]
    if left and unlisted == "error":
        raise InputError(
            f"the label map holds {_named(left)}, which `segments` does not list; list them, or set "
            "unlisted: background"
        )
    if left:
        notes.append(f"{len(left)} label(s) of the image that are not listed count as background")
    return chosen, notes


def _named(labels: list[_Label]) -> str:
    text = ", ".join(str(label) for label in labels[:MAXIMUM_NAMED])
    more = f" and {len(labels) - MAXIMUM_NAMED} more" if len(labels) > MAXIMUM_NAMED else ""
    return f"label {text}{more}" if labels else "no labels"


@dataclass(frozen=True)
class _Crop:
    """A boolean part of the image whose first voxel has the index `start`."""

    mask: NDArray[np.bool_]
    start: NDArray[np.int64]


def _mask(image: LabelImage, label: _Label) -> _Crop:
    """The label's voxels, cropped to their box with one empty voxel around."""
    layer = image.layers[label.layer]
    whole = layer == label.value
    ranges = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        used = np.flatnonzero(whole.any(axis=others))
        ranges.append((int(used[0]), int(used[-1]) + 1))
    crop = whole[tuple(slice(a, b) for a, b in ranges)]
    return _Crop(np.pad(crop, 1), np.array([a - 1 for a, _ in ranges]))


def _surface(crop: _Crop, grid: Grid, pass_band: float) -> TriangleSurface:
    """Closed, smooth surface [m, LPS] around the voxels, of their volume."""
    image = pv.ImageData(dimensions=crop.mask.shape)
    image.point_data["inside"] = crop.mask.astype(np.uint8).ravel(order="F")
    mesh = image.contour([0.5], scalars="inside", method="flying_edges", compute_normals=False)
    # Filtered in units of voxels: thick slices give stairs one unit high like any other.
    in_voxels = smooth(
        TriangleSurface(np.asarray(mesh.points, np.float64), np.asarray(mesh.regular_faces, np.int64)),
        pass_band,
    )
    surface = TriangleSurface(grid.points(in_voxels.points + crop.start), in_voxels.triangles)
    if volume(surface) < 0:
        surface = TriangleSurface(surface.points, surface.triangles[:, ::-1])
    return with_volume(surface, int(crop.mask.sum()) * grid.cell_volume)


def _whole_liver(structures: list[Structure], crops: list[_Crop], grid: Grid) -> _Crop | None:
    """Organ, tumours and the vessels between them: vessels ∩ closing(organ ∪ tumours).

    The closing is by a ball of ``VESSEL_CLOSING``, with distances in millimetres, not voxels.
    """
    roles = [s.role for s in structures]
    if "organ" not in roles:
        return None
    pad = np.ceil(VESSEL_CLOSING / np.asarray(grid.spacing)).astype(np.int64) + 1
    body = [c for c, role in zip(crops, roles, strict=True) if role in ("organ", "tumor")]
    low = np.min([c.start for c in body], axis=0) - pad
    high = np.max([c.start + c.mask.shape for c in body], axis=0) + pad
    solid, vessels = np.zeros(tuple(high - low), bool), np.zeros(tuple(high - low), bool)
    for crop, role in zip(crops, roles, strict=True):
        target = {"organ": solid, "tumor": solid, "vessel": vessels}.get(role)
        if target is not None:
            _paste(crop, target, low)
    if vessels.any():
        grown = ndimage.distance_transform_edt(~solid, sampling=grid.spacing) <= VESSEL_CLOSING
        closed = ndimage.distance_transform_edt(grown, sampling=grid.spacing) > VESSEL_CLOSING
        solid |= vessels & closed
    return _Crop(solid, low)


def _paste(crop: _Crop, target: NDArray[np.bool_], low: NDArray[np.int64]) -> None:
    """Set the crop's voxels in `target`, whose first voxel has the index `low`."""
    offset = crop.start - low
    start, end = np.maximum(offset, 0), np.minimum(offset + crop.mask.shape, target.shape)
    if (start >= end).any():
        return
    part = crop.mask[tuple(slice(a, b) for a, b in zip(start - offset, end - offset, strict=True))]
    target[tuple(slice(a, b) for a, b in zip(start, end, strict=True))] |= part
