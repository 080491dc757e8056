"""zone.dcm: ablation zone and tumours as a DICOM segmentation over the patient's series (PS3.3, A.51)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.clinical_files import mask_of_surface
from thermosim.anatomy.dicom_files import open_dicom, quiet
from thermosim.anatomy.dicom_series import SeriesGeometry
from thermosim.anatomy.frames import check_overlap
from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError
from thermosim.outcome.level_set import LevelSet, crop_grid
from thermosim.report.atomic import replacing

IDENTITY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""What a segmentation takes over from its source (type 2: it may be empty)."""

OTHERS = (
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDescription",
    "IssuerOfPatientID",
    "OtherPatientIDs",
)
"""What it takes over if it is there."""

REMOVED = "names, numbers and dates of patient and study left out; UIDs of study, frame and images kept"
SERIES_NUMBER = 7001

MORPHOLOGY = ("49755003", "SCT", "Morphologically Altered Structure")
NECROSIS = ("6574001", "SCT", "Necrosis")
MASS = ("4147007", "SCT", "Mass")


@dataclass(frozen=True)
class SegmentSource:
    """One structure to write: its name, what it is (a code of SNOMED CT) and its place."""

    name: str
    code: tuple[str, str, str]
    place: LevelSet | TriangleSurface


def check_source(geometry: SeriesGeometry, grid: Grid) -> None:
    """Refuse a source series on which the computing box does not lie, or without a frame of reference."""
    if geometry.frame_of_reference is None:
        raise InputError("output.dicom_source_directory: the series has no frame of reference")
    box = np.broadcast_to(np.True_, grid.shape)
    check_overlap(
        "the computing box", grid, box, "the series of output.dicom_source_directory", geometry.grid
    )


def write_segmentation(
    path: Path, segments: Sequence[SegmentSource], geometry: SeriesGeometry, *, keep_identity: bool = False
) -> bool:
    """Write the segments on the voxels of the source series, whole or not at all.

    A voxel belongs to a segment if its centre lies inside. Slices where nothing is are left out.
    The file names the study, the frame of reference and the images it lies on, as the standard
    demands; what else the source says of the patient is left empty unless `keep_identity`.

    Returns
    -------
    bool : False, and nothing is written, where no segment covers a voxel.
    """
    masks = [_on_series(segment.place, geometry.grid) for segment in segments]
    used = np.flatnonzero(np.any([mask.any(axis=(0, 1)) for mask in masks], axis=0))
    kept = [(s, m) for s, m in zip(segments, masks, strict=True) if m.any()]
    if not kept:
        return False
    sources = [_header(geometry.files[k], geometry.grid, keep_identity) for k in used]
    pixels = np.stack([m[:, :, used].transpose(2, 1, 0) for _, m in kept], axis=-1).astype(np.uint8)
    dataset = _segmentation(sources, pixels, [s for s, _ in kept])
    if not keep_identity:
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = REMOVED[:64]
    with replacing(path) as temporary, quiet():
        dataset.save_as(temporary, enforce_file_format=True)
    return True


def _on_series(place: LevelSet | TriangleSurface, grid: Grid) -> NDArray[np.bool_]:
    """Voxels of the series whose centre lies inside."""
    if isinstance(place, LevelSet):
        ends = np.stack(np.meshgrid(*([-0.5, n - 0.5] for n in place.grid.shape)), axis=-1).reshape(-1, 3)
        corners = place.grid.points(ends)
    else:
        corners = place.points
    index = grid.indices(corners)
    low = np.maximum(np.floor(index.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, grid.shape)
    mask = np.zeros(grid.shape, bool)
    if (low >= high).any():
        return mask
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    part = crop_grid(grid, box)
    mask[box] = place.on(part) > 0 if isinstance(place, LevelSet) else mask_of_surface(place, part)
    return mask


def _header(path: Path, grid: Grid, keep_identity: bool) -> Any:
    """A source image without its pixels and, unless asked for, without the patient."""
    header = open_dicom(path, pixels=False)
    header.SpacingBetweenSlices = f"{1e3 * grid.spacing[2]:.6f}"  # scanners mean different things by it
    for keyword in IDENTITY:
        if keyword not in header or not keep_identity:
            setattr(header, keyword, "")
    if not keep_identity:
        for keyword in OTHERS:
            if keyword in header:
                delattr(header, keyword)
    return header


def _segmentation(sources: list[Any], pixels: NDArray[np.uint8], segments: list[SegmentSource]) -> Any:
    """The data set, made by highdicom."""
    import highdicom as hd
    from pydicom.sr.coding import Code

    version = str(getattr(sys.modules["thermosim"], "__version__", "unknown"))
    algorithm = hd.AlgorithmIdentificationSequence(
        name="thermosim", family=Code("simulation", "99THERMOSIM", "Physical simulation"), version=version
    )
    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=segment.name[:64],
            segmented_property_category=Code(*MORPHOLOGY),
            segmented_property_type=Code(*segment.code),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, segment in enumerate(segments, start=1)
    ]
    with quiet():
        return hd.seg.Segmentation(
            source_images=sources,
            pixel_array=pixels,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=described,
            series_instance_uid=hd.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="thermosim",
            manufacturer_model_name="thermosim",
            software_versions=version,
            device_serial_number="none",
            content_label="ABLATION",
            content_description="Simulated, for research only",
            series_description="Simulated ablation zone (research only)",
        )
