"""Dataclasses that type `configs/compare.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class CompareOutputConfig:
    """What a comparison leaves behind."""

    directory: str = MISSING
    report: bool = True  # report.html


@dataclass
class CompareConfig:
    """A predicted zone and the one observed after treatment, in the same frame."""

    title: str = "Predicted and observed ablation zone"
    # A simulated run: its directory or its result.h5 (zones by every criterion, tumours). Or a zone's mask:
    # NIfTI, NRRD, DICOM SEG, RTSTRUCT or a closed mesh.
    prediction: str = MISSING
    prediction_segment: str | None = None  # which structure of a mask's file; null: the only one
    prediction_ct: str | None = (
        None  # CT a mask belongs to; an RTSTRUCT needs it, others are checked against it
    )
    observation: str = MISSING  # mask of the zone seen on the images after treatment
    observation_segment: str | None = None
    observation_ct: str | None = None
    tumor: str | None = None  # mask of a tumour; null: the tumours of the run, if it is one
    tumor_segment: str | None = None
    tumor_ct: str | None = None
    criterion: str | None = None  # of the run, that the page shows; null: the run's own
    ignore_frames: bool = False  # accept masks of different DICOM frames of reference: they are registered
    mesh_frame: str = "LPS"  # LPS | RAS: of a mesh's points
    mesh_unit: str = "mm"  # mm | m
    mesh_spacing_mm: float = 1.0  # of the voxels a mesh is filled with
    output: CompareOutputConfig = field(default_factory=CompareOutputConfig)
