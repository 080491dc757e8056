"""One way in for the files of a clinic: masks and CTs, whatever their format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.dicom_files import RTSTRUCT, is_dicom, open_dicom
from thermosim.anatomy.dicom_seg import read_seg
from thermosim.anatomy.dicom_series import narrowed, read_series, series_geometry
from thermosim.anatomy.frames import check_overlap, check_same_frame
from thermosim.anatomy.grid import LPS_TO_RAS, Grid
from thermosim.anatomy.label_image import LabelImage, read_label_image, read_volume
from thermosim.anatomy.mesh import clean
from thermosim.anatomy.rasterize import inside
from thermosim.anatomy.rtstruct import read_rtstruct
from thermosim.anatomy.surface_files import check_frame, read_surface
from thermosim.errors import InputError
from thermosim.units import MILLIMETRE

SURFACE_KINDS = (".stl", ".obj", ".ply", ".vtk", ".vtp")
MAXIMUM_NAMED = 20


@dataclass(frozen=True)
class MaskImage:
    """What is inside one structure: bool (nx, ny, nz) on the grid of its image.

    `frame_of_reference`: DICOM's UID of the frame its positions are given in, None where the format
    has none. Two files with different UIDs do not lie over each other unless they are registered.
    """

    grid: Grid
    mask: NDArray[np.bool_]
    name: str
    frame_of_reference: str | None = None


@dataclass(frozen=True)
class CtImage:
    """A CT on its grid: `values` (nx, ny, nz) int16 or float32, in Hounsfield units."""

    grid: Grid
    values: NDArray[np.int16] | NDArray[np.float32]
    frame_of_reference: str | None = None


def read_ct(path: str | Path) -> CtImage:
    """A CT from a folder of DICOM slices, NIfTI or NRRD.

    Raises
    ------
    InputError : no such file, damaged, mixed series, tilted gantry, missing slices.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        geometry, values = read_series(place)
        return CtImage(geometry.grid, values, geometry.frame_of_reference)
    if is_dicom(place):
        raise InputError(f"{place.name!r} is one DICOM file; name the folder that holds the whole series")
    volume = read_volume(place)
    if len(volume.layers) != 1:
        raise InputError(f"image {place.name!r} has {len(volume.layers)} volumes; a CT has one")
    (layer,) = volume.layers
    if layer.dtype == np.int16:
        return CtImage(volume.grid, layer.astype(np.int16))
    try:
        return CtImage(volume.grid, narrowed(layer.astype(np.float32)))
    except InputError as error:
        raise InputError(f"image {place.name!r}: {error}") from None


def read_mask(
    path: str | Path,
    segment: str | int | None = None,
    *,
    grid: Grid | None = None,
    ct: str | Path | CtImage | None = None,
    frame: str = "LPS",
    unit: str = "mm",
) -> MaskImage:
    """One structure from NIfTI, NRRD, `.seg.nrrd`, DICOM SEG, RTSTRUCT or a closed mesh.

    Parameters
    ----------
    segment : name or value of the structure; None where the file holds only one.
    grid : voxels for a mesh or for an RTSTRUCT, which have none of their own.
    ct : the CT that the structure belongs to, or its path: a folder of DICOM slices, NIfTI or NRRD. It
        gives the voxels of a mesh and an RTSTRUCT; other files are checked against it.
    frame, unit : of a mesh's points, LPS or RAS, mm or m.

    Raises
    ------
    InputError : damaged, several structures and none named, no such structure, an empty one.
    """
    place = Path(path).expanduser()
    if place.suffix.lower() in SURFACE_KINDS:
        if grid is None and ct is not None:
            grid = image_frame(ct)[0]
        return _mask_of_surface(place, grid, frame, unit)
    return chosen(read_segments(place, grid=grid, ct=ct), segment, place.name)


def read_segments(
    path: str | Path, *, grid: Grid | None = None, ct: str | Path | CtImage | None = None
) -> LabelImage:
    """All structures of a label map, `.seg.nrrd`, DICOM SEG or RTSTRUCT; see `read_mask`.

    Raises
    ------
    InputError : damaged; an RTSTRUCT without voxels; the file and its CT do not lie in one frame.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        raise InputError(f"{place.name!r} is a folder; name the file of the segmentation")
    image, frame = (None, None) if ct is None else image_frame(ct)
    if is_dicom(place) and str(open_dicom(place, pixels=False).get("SOPClassUID")) == RTSTRUCT:
        voxels = grid or image
        if voxels is None:
            raise InputError(
                f"RTSTRUCT {place.name!r} has contours but no voxels; name the CT it was drawn on as well "
                "(anatomy.ct_path, or ct_before and ct_after of `thermosim margin`)"
            )
        return read_rtstruct(place, voxels, frame)
    labels = read_seg(place) if is_dicom(place) else read_label_image(place)
    if ct is not None and image is not None:
        names = f"{place.name!r}", "its CT" if isinstance(ct, CtImage) else f"its CT {Path(ct).name!r}"
        check_same_frame(names[0], labels.frame_of_reference, names[1], frame)
        everything = np.any(labels.layers, axis=0) if len(labels.layers) > 1 else labels.layers[0]
        check_overlap(names[0], labels.grid, everything, names[1], image)
    return labels


def chosen(image: LabelImage, segment: str | int | None, file: str) -> MaskImage:
    """One structure of an image that may hold several.

    Raises
    ------
    InputError : several and none named, no such structure, an empty one.
    """
    named = {s.name: (s.layer, s.value) for s in image.segments}
    present = _values(image)
    if not named:
        named = {str(value): (layer, value) for layer, value in present}
    if not present:
        raise InputError(f"{file!r} is empty: all its voxels are background")
    if segment is None:
        if len(named) > 1:
            raise InputError(f"{file!r} holds several structures; name one of {_listed(list(named))}")
        name = next(iter(named))
    else:
        name = _matching(str(segment), named, file)
    layer, value = named[name]
    mask = np.asarray(image.layers[layer] == value)
    if not mask.any():
        raise InputError(f"{file!r}: structure {name!r} has no voxels")
    return MaskImage(image.grid, mask, name, image.frame_of_reference)


def _matching(wanted: str, named: dict[str, tuple[int, int]], file: str) -> str:
    """The structure of that name, else that value."""
    if wanted in named:
        return wanted
    same = [name for name in named if name.casefold() == wanted.casefold()]
    by_value = [name for name, (_, value) in named.items() if str(value) == wanted]
    if len(same or by_value) == 1:
        return (same or by_value)[0]
    raise InputError(f"{file!r} holds no structure {wanted!r}; it has {_listed(list(named))}")


def _values(image: LabelImage) -> list[tuple[int, int]]:
    """Layer and value of each label that occurs, without the background."""
    found = []
    for number, layer in enumerate(image.layers):
        present = np.zeros(65536, bool)
        for k in range(layer.shape[2]):
            present[layer[:, :, k]] = True
        found += [(number, int(value)) for value in np.flatnonzero(present) if value]
    return found


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAXIMUM_NAMED} more" if len(names) > MAXIMUM_NAMED else ""
    return ", ".join(repr(name) for name in names[:MAXIMUM_NAMED]) + more


def _mask_of_surface(path: Path, grid: Grid | None, frame: str, unit: str) -> MaskImage:
    if frame not in ("LPS", "RAS") or unit not in ("mm", "m"):
        raise InputError(f"{path.name}: frame {frame!r} must be LPS or RAS, unit {unit!r} mm or m")
    raw = read_surface(path)
    check_frame(path, frame, "mesh_frame")
    to_lps = (MILLIMETRE if unit == "mm" else 1.0) * (LPS_TO_RAS if frame == "RAS" else np.eye(3))
    surface, _ = clean(TriangleSurface(raw.points @ to_lps.T, raw.triangles), path.stem)
    if grid is None:
        raise InputError(f"{path.name}: a mesh has no voxels; a grid or an image that gives one is needed")
    mask = mask_of_surface(surface, grid)
    if not mask.any():
        raise InputError(f"{path.name}: the mesh covers no voxel of the grid; is frame={frame} right?")
    return MaskImage(grid, mask, path.stem)


def mask_of_surface(surface: TriangleSurface, grid: Grid) -> NDArray[np.bool_]:
    """Voxels of any grid whose centre lies inside a closed surface."""
    cells = Grid(grid.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))  # in units of voxels every grid is a cube's
    return inside(TriangleSurface(grid.indices(surface.points), surface.triangles), cells)


def image_frame(image: str | Path | CtImage) -> tuple[Grid, str | None]:
    """Grid and frame of reference of a CT: of a DICOM series by its headers alone."""
    if isinstance(image, CtImage):
        return image.grid, image.frame_of_reference
    place = Path(image).expanduser()
    if place.is_dir():
        geometry = series_geometry(place)
        return geometry.grid, geometry.frame_of_reference
    ct = read_ct(place)
    return ct.grid, ct.frame_of_reference
