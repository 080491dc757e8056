"""`thermosim compare`: a predicted zone against the one observed after treatment."""

from __future__ import annotations

import json
from pathlib import Path

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.commands.application import Job, run_application, say
from thermosim.commands.masks import Mask, MaskOptions, read_zone
from thermosim.composition import register, typed
from thermosim.config_compare import CompareConfig
from thermosim.errors import InputError
from thermosim.outcome.comparison import ZoneComparison, check_overlap, compare_margins, compare_zones
from thermosim.outcome.level_set import LevelSet
from thermosim.outcome.surface import moments
from thermosim.report.atomic import write_text
from thermosim.report.comparison_page import comparison_page
from thermosim.report.comparison_summary import Comparison, closing_lines, comparison_summary
from thermosim.report.result_file import StoredRun, read_run

RESULT, ZONE = "result.h5", "zone.nii.gz"
MASK = "mask"
FILES = ("prediction", "observation", "tumor", "prediction_ct", "observation_ct", "tumor_ct")


def command(words: list[str]) -> int:
    """Run the subcommand with the words after its name."""
    register({"compare_schema": CompareConfig})
    return run_application("compare", "compare", _job, words, FILES)


def _job(job: Job) -> int:
    config, _ = typed(job.settings, CompareConfig)
    MaskOptions(config.mesh_frame, config.mesh_unit, config.mesh_spacing_mm)
    found, tumors = compare(config)
    summary = comparison_summary(found, config.title)
    job.directory.mkdir(parents=True, exist_ok=True)
    written = {"summary": job.directory / "summary.json", "report": job.directory / "report.html"}
    write_text(written["summary"], json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    if config.output.report:
        write_text(written["report"], comparison_page(summary, found, tumors))
    else:
        written["report"].unlink(missing_ok=True)
        del written["report"]
    say(iter([*closing_lines(summary), *(f"{name}: {path}" for name, path in written.items())]), job.label)
    return 0


def compare(config: CompareConfig) -> tuple[Comparison, dict[str, TriangleSurface]]:
    """Compare what a configuration names; returns it with the tumours' surfaces by name.

    Raises
    ------
    InputError : a file that cannot be used, empty zones, no overlap, different frames.
    """
    observation = _read(config, "observation")
    run = _run_at(Path(config.prediction).expanduser())
    tumors = {} if run is None or config.tumor is not None else run.tumors
    predictions: dict[str, LevelSet | None]
    notes: list[str] = []
    if run is None:
        mask = _read(config, "prediction")
        _check_frames(config, mask, observation)
        predictions, descriptions, shown = {MASK: mask.level}, {MASK: "the mask that was given"}, MASK
        spacing = mask.spacing
        if config.criterion is not None:
            raise InputError(f"criterion={config.criterion}: the prediction is a mask; leave criterion out")
    else:
        predictions, descriptions, spacing = run.zones, run.descriptions, (run.spacing,) * 3
        shown = _criterion(config, run)
        notes += _notes_of(run, shown)
    if config.tumor is not None:
        tumor = _read(config, "tumor")
        _check_frames(config, tumor, observation)
        check_overlap(tumor.surface, observation.surface, "tumour")
        tumors = {"tumor": tumor.surface}
    zones: dict[str, ZoneComparison | None] = {
        name: None if level is None else compare_zones(level, observation.level)
        for name, level in predictions.items()
    }
    edge = min(*spacing, *observation.spacing)
    margins = tuple(
        compare_margins(name, surface, predictions[shown], observation.level, edge)
        for name, surface in tumors.items()
        if len(surface.triangles)
    )
    volume = moments(observation.surface)[0]
    if max(observation.spacing) > 2e-3:
        thick = 1e3 * max(observation.spacing)
        notes.append(f"the observed mask has voxels of {thick:g} mm: its surface is known to a part of that")
    found = Comparison(
        shown, zones, descriptions, margins, volume, (spacing, observation.spacing), tuple(notes)
    )
    return found, tumors


def _read(config: CompareConfig, which: str) -> Mask:
    """The mask that `which` of the configuration's files holds."""
    path = Path(getattr(config, which))
    segment, ct = getattr(config, f"{which}_segment"), getattr(config, f"{which}_ct")
    options = MaskOptions(config.mesh_frame, config.mesh_unit, config.mesh_spacing_mm)
    return read_zone(which, path, segment, ct, options)


def _run_at(path: Path) -> StoredRun | None:
    """The run in a directory, or of a result.h5; None for the file of a mask."""
    if path.is_dir():
        if not (path / RESULT).is_file():
            raise InputError(f"prediction={path.name}: there is no {RESULT} in that directory")
        return read_run(path / RESULT)
    if path.suffix.lower() in (".h5", ".hdf5"):
        return read_run(path)
    return None


def _criterion(config: CompareConfig, run: StoredRun) -> str:
    wanted = config.criterion or run.criterion
    if wanted not in run.zones:
        raise InputError(f"criterion={wanted!r} is not in the run; it has {', '.join(run.zones)}")
    return wanted


def _notes_of(run: StoredRun, shown: str) -> list[str]:
    notes = []
    if not run.completed:
        notes.append("the simulated run was stopped before its protocol ended")
    if shown in run.touches_box:
        notes.append("the predicted zone reaches the faces of the computed box, so it is too small")
    return notes


def _check_frames(config: CompareConfig, one: Mask, observation: Mask) -> None:
    both = one.frame is not None and observation.frame is not None
    if both and one.frame != observation.frame and not config.ignore_frames:
        raise InputError(
            "prediction or tumour and observation have different DICOM frames of reference: their positions "
            "are not in one space. Register the observation first, or set ignore_frames=true if that was done"
        )
