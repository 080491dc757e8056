"""`thermosim margin`: files of a clinic in, the margin of what really happened out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thermosim.commands.application import Job, run_application, say
from thermosim.composition import register, typed
from thermosim.config_margin import FILE_KEYS, MarginConfig
from thermosim.errors import InputError
from thermosim.units import MILLIMETRE

if TYPE_CHECKING:
    from thermosim.outcome.observation import Observation, ObservedInputs

METHODS = ("auto", "none", "rigid", "deformable", "landmarks")
MOST_SHRINKAGE = 0.4


def command(words: list[str]) -> int:
    """`thermosim margin key=value ...`; returns its exit code."""
    register({"margin_schema": MarginConfig})
    return run_application("margin", "margin", _job, words, FILE_KEYS)


def _job(job: Job) -> int:
    config, _ = typed(job.settings, MarginConfig)
    result = measure_margin(config)
    say(_closing_lines(result, result.save(job.directory), job.directory), job.label)
    return 0


def _closing_lines(result: MarginResult, files: dict[str, Path], directory: Path) -> Iterator[str]:
    tumor = result.observation.tumor
    yield (
        f"minimal ablative margin {round(1e3 * tumor.all_around.minimum, 1) + 0.0:.1f} mm, "
        f"{100 * tumor.coverage:.1f} % of the tumour ablated, {1e6 * tumor.residual_volume:.2f} ml left"
    )
    for warning in result.observation.quality.warnings if result.observation.quality else ():
        yield f"caution: {warning}"
    yield f"outputs: {directory}"
    if "report" in files:
        yield f"report: {files['report']}"


# ---------------------------------------------------------------------------- from Python


@dataclass(frozen=True)
class MarginResult:
    """What `measure_margin` found: shapes, margin and fusion in `observation`."""

    config: MarginConfig
    observation: Observation

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The figures of summary.json."""
        from thermosim.report.margin_report import summarize_margin

        return summarize_margin(self.observation, asdict(self.config), self.config.title)

    def save(self, directory: str | Path) -> dict[str, Path]:
        """Write summary, report, zone, mesh and transform into `directory`; returns the files by name."""
        from thermosim.report.margin_report import write_margin

        return write_margin(
            Path(directory), self.observation, self.summary, asdict(self.config), self.config.output
        )


def measure_margin(config: MarginConfig) -> MarginResult:
    """Read the files, fuse the images and measure the margin.

    Raises
    ------
    InputError : files that cannot be used, frames that do not agree, a fusion that cannot be right.

    Examples
    --------
    >>> measure_margin(MarginConfig(tumor="nowhere.nii.gz", ablation="zone.nii.gz"))
    Traceback (most recent call last):
    ...
    thermosim.errors.InputError: label map 'nowhere.nii.gz' was not found; check its path
    """
    from thermosim.outcome.observation import Limits, observe

    method = check_margin(config)
    started = time.perf_counter()
    inputs = _read(config)
    fusion = config.fusion
    limits = Limits(
        math.radians(fusion.maximum_rotation_deg),
        fusion.maximum_shift_mm * MILLIMETRE,
        fusion.maximum_deformation_mm * MILLIMETRE,
        fusion.minimum_jacobian,
    )
    observation = observe(
        inputs,
        method,
        limits,
        control_spacing=fusion.control_spacing_mm * MILLIMETRE,
        shrinkage=config.shrinkage.linear_fraction,
        ignore_frames=fusion.ignore_frames,
    )
    return MarginResult(config, replace(observation, seconds=time.perf_counter() - started))


def check_margin(config: MarginConfig) -> str:
    """Refuse contradictions before any file is read; returns the method of fusion."""
    from thermosim.commands.masks import MaskOptions

    fusion = config.fusion
    if fusion.method not in METHODS:
        raise InputError(f"fusion.method={fusion.method!r} is not known; use one of {', '.join(METHODS)}")
    both = config.ct_before is not None and config.ct_after is not None
    if (config.ct_before is None) != (config.ct_after is None) and fusion.method not in ("none", "landmarks"):
        given, other = ("ct_before", "ct_after") if config.ct_after is None else ("ct_after", "ct_before")
        raise InputError(
            f"{given} is given without {other}; a fusion needs both (or fusion.method=none takes the frames "
            "as they are)"
        )
    method = ("rigid" if both else "none") if fusion.method == "auto" else fusion.method
    if method in ("rigid", "deformable") and not both:
        raise InputError(f"fusion.method={method} needs ct_before and ct_after")
    if method == "landmarks" and fusion.landmarks is None:
        raise InputError("fusion.method=landmarks needs fusion.landmarks=FILE.csv")
    _check_range("fusion.control_spacing_mm", fusion.control_spacing_mm, 10.0, 200.0)
    _check_range("fusion.maximum_rotation_deg", fusion.maximum_rotation_deg, 0.0, 180.0)
    _check_range("fusion.maximum_shift_mm", fusion.maximum_shift_mm, 0.0, 1000.0)
    _check_range("fusion.maximum_deformation_mm", fusion.maximum_deformation_mm, 0.0, 200.0)
    _check_range("fusion.minimum_jacobian", fusion.minimum_jacobian, 0.01, 1.0)
    _check_range("shrinkage.linear_fraction", config.shrinkage.linear_fraction, 0.0, MOST_SHRINKAGE)
    if config.output.dicom and (config.ct_before is None or not Path(config.ct_before).expanduser().is_dir()):
        raise InputError("output.dicom=true needs ct_before=FOLDER, the DICOM series that zone.dcm lies on")
    if config.output.keep_patient_identity and not config.output.dicom:
        raise InputError(
            "output.keep_patient_identity=true needs output.dicom=true; only zone.dcm can name one"
        )
    MaskOptions(config.mesh_frame, config.mesh_unit, config.mesh_spacing_mm)
    return method


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"{name}={value:g} is refused; it must lie between {low:g} and {high:g}")


def _read(config: MarginConfig) -> ObservedInputs:
    """Every file of the case."""
    from thermosim.anatomy.clinical_files import read_ct
    from thermosim.outcome.landmarks import read_landmarks
    from thermosim.outcome.observation import ObservedInputs
    from thermosim.outcome.registration import Image

    cts: list[Image | None] = []
    frames: list[str | None] = []
    for path in (config.ct_before, config.ct_after):
        ct = None if path is None else read_ct(path)
        cts.append(None if ct is None else Image(ct.grid, ct.values))
        frames.append(None if ct is None else ct.frame_of_reference)
    tumor = _mask(config, config.tumor, config.tumor_segment, frames[0], cts[0])
    zone = _mask(config, config.ablation, config.ablation_segment, frames[1], cts[1])
    livers = [
        None if path is None else _mask(config, path, segment, frame, image)
        for path, segment, frame, image in (
            (config.liver, config.liver_segment, frames[0], cts[0]),
            (config.liver_after, config.liver_after_segment, frames[1], cts[1]),
        )
    ]
    landmarks = config.fusion.landmarks
    return ObservedInputs(
        tumor=(tumor.mask, tumor.grid),
        zone=(zone.mask, zone.grid),
        liver_before=None if livers[0] is None else (livers[0].mask, livers[0].grid),
        liver_after=None if livers[1] is None else (livers[1].mask, livers[1].grid),
        ct_before=cts[0],
        ct_after=cts[1],
        landmarks=None if landmarks is None else read_landmarks(Path(landmarks).expanduser()),
        frames_before=tuple(
            f for f in (tumor.frame_of_reference, livers[0] and livers[0].frame_of_reference, frames[0]) if f
        ),
        frames_after=tuple(
            f for f in (zone.frame_of_reference, livers[1] and livers[1].frame_of_reference, frames[1]) if f
        ),
    )


def _mask(config: MarginConfig, path: str, segment: str | None, frame: str | None, ct: Any) -> Any:
    """One mask, on its own voxels or, for meshes and contours, on those of the CT beside it.

    A mesh without a CT gets voxels of its own.
    """
    from thermosim.anatomy.clinical_files import SURFACE_KINDS, CtImage, read_mask
    from thermosim.commands.masks import MaskOptions, voxels_of_mesh

    place = Path(path).expanduser()
    grid = None
    if ct is None and place.suffix.lower() in SURFACE_KINDS:
        grid = voxels_of_mesh(place, MaskOptions(config.mesh_frame, config.mesh_unit, config.mesh_spacing_mm))
    return read_mask(
        place,
        segment,
        grid=grid,
        ct=None if ct is None else CtImage(ct.grid, ct.values, frame),
        frame=config.mesh_frame,
        unit=config.mesh_unit,
    )
