"""Dataclasses that type the configuration of `thermosim margin` (`configs/margin.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class FusionConfig:
    """How the images before and after treatment are laid over each other."""

    # auto: rigid where both CTs are given, else none | none | rigid | deformable | landmarks
    method: str = "auto"
    landmarks: str | None = None  # CSV of places seen in both: name, before_x/y/z, after_x/y/z (LPS mm)
    control_spacing_mm: float = 45.0  # between control points of a deformable fusion
    maximum_rotation_deg: float = 30.0  # a larger turn is refused
    maximum_shift_mm: float = 80.0  # a liver that lands further from where it may be expected is refused
    maximum_deformation_mm: float = 30.0  # largest displacement beyond the rigid motion
    minimum_jacobian: float = 0.3  # a deformation that shrinks volumes further is refused
    ignore_frames: bool = False  # take different DICOM frames of reference as one without a fusion


@dataclass
class ShrinkageConfig:
    """Optional correction: ablated tissue has shrunk before the image after treatment is taken."""

    linear_fraction: float = 0.0  # the zone is enlarged about its centre by 1 / (1 − fraction)


@dataclass
class MarginOutputConfig:
    """What `thermosim margin` leaves behind."""

    directory: str = MISSING
    report: bool = True  # report.html
    scene: bool = True  # scene.png
    nifti: bool = True  # zone.nii.gz, margin.nii.gz
    mesh: bool = True  # margin.vtp
    dicom: bool = False  # zone.dcm over the series of ct_before
    keep_patient_identity: bool = False  # whether zone.dcm names the patient as the series does
    file_names: bool = False  # keep the names of the input files in config.yaml; they may name a patient


@dataclass
class MarginConfig:
    """Tumour before and ablation zone after treatment, each with or without its CT."""

    title: str = "Ablative margin"
    tumor: str = MISSING  # mask before: NIfTI, NRRD, .seg.nrrd, DICOM SEG, RTSTRUCT, or a closed mesh
    tumor_segment: str | None = None  # name or value, where the file holds several
    ablation: str = MISSING  # mask after
    ablation_segment: str | None = None
    liver: str | None = None  # mask before: subcapsular rule, shells, and guide of the fusion
    liver_segment: str | None = None
    liver_after: str | None = None  # mask after: shows how good the fusion is
    liver_after_segment: str | None = None
    ct_before: str | None = None  # folder of DICOM slices, NIfTI or NRRD
    ct_after: str | None = None
    mesh_frame: str = "LPS"  # of meshes: LPS | RAS
    mesh_unit: str = "mm"  # of meshes: mm | m
    mesh_spacing_mm: float = 0.5  # of the voxels that fill a mesh without a CT
    fusion: FusionConfig = field(default_factory=FusionConfig)
    shrinkage: ShrinkageConfig = field(default_factory=ShrinkageConfig)
    output: MarginOutputConfig = field(default_factory=MarginOutputConfig)


FILE_KEYS = (
    "tumor",
    "ablation",
    "liver",
    "liver_after",
    "ct_before",
    "ct_after",
    "fusion.landmarks",
)
"""Keys that take the name of a file or folder."""
