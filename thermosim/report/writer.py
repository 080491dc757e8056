"""All outputs of a run, in one call."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.config import OutputConfig
from thermosim.errors import InputError
from thermosim.outcome.criteria import zone_level_set
from thermosim.outcome.results import Outcome
from thermosim.report.generator_log import GeneratorLog
from thermosim.report.hdf5 import write_result
from thermosim.report.html import write_report
from thermosim.report.margin_mesh import write_margin_mesh
from thermosim.report.markups import write_layout
from thermosim.report.meshes import scene_meshes
from thermosim.report.nifti import write_margin, write_zone
from thermosim.report.poses import first_places, poses
from thermosim.report.scene import drawing
from thermosim.report.summary import summarize, write_summary
from thermosim.report.zones import damage_of, zone_mask
from thermosim.simulation import SimulationResult

FILES = {
    "result": "result.h5",
    "summary": "summary.json",
    "zone": "zone.nii.gz",
    "tumor": "tumor.nii.gz",
    "liver": "liver.nii.gz",
    "margin": "margin.nii.gz",
    "mesh": "margin.vtp",
    "markups": "layout.mrk.json",
    "dicom": "zone.dcm",
    "scene": "scene.png",
    "report": "report.html",
}


def write_outputs(
    directory: Path,
    result: SimulationResult,
    outcome: Outcome,
    display_surfaces: dict[str, TriangleSurface],
    config: dict[str, Any],
    title: str,
    options: OutputConfig,
    log: GeneratorLog | None = None,
) -> dict[str, Path]:
    """Write what `options` asks for and return the files by key.

    ``result.h5`` and ``summary.json`` are always written, all others of ``FILES`` as `options` say. Each
    file is there whole or not at all. Files of these names from an earlier run that this one does not
    write are removed, so that a folder never mixes two runs. Where no picture can be drawn the run goes
    on and a note in the summary and the report says why.

    Parameters
    ----------
    config : the resolved configuration as plain mappings, lists and scalars.
    display_surfaces : the whole anatomy by structure name, LPS [m].
    log : readings of a real generator, drawn over the simulated ones.

    Raises
    ------
    InputError : the directory cannot be written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output.directory {directory.name!r} cannot be made: {error.strerror}; choose another one"
        ) from error
    paths = {key: directory / name for key, name in FILES.items()}
    written = {key: paths[key] for key in ("result", "summary")}
    notes = []
    meshes = []
    stands = poses(result)
    if options.scene or options.report:
        meshes = scene_meshes(result, outcome, display_surfaces, stands[:-1])
    with drawing(paths["scene"], meshes) if options.scene else nullcontext() as picture_of_scene:
        write_result(paths["result"], result, outcome, config, title)
        if options.nifti:
            written["zone"] = paths["zone"]
            grid = result.anatomy.grid
            write_zone(paths["zone"], zone_mask(result, outcome.criterion, config), grid)
            tumors = _tumor_labels(result)
            for key, mask in (("tumor", tumors), ("liver", result.anatomy.liver_mask)):
                if mask.any():
                    written[key] = paths[key]
                    write_zone(paths[key], mask, grid)
            if outcome.tumors:
                written["margin"] = paths["margin"]
                write_margin(paths["margin"], outcome.tumors, grid)
        if options.mesh and outcome.tumors:
            written["mesh"] = paths["mesh"]
            write_margin_mesh(paths["mesh"], *outcome.tumors)
        if options.markups:
            written["markups"] = paths["markups"]
            write_layout(paths["markups"], first_places(result))
        if options.dicom_source_directory is not None:
            if _write_dicom(paths["dicom"], result, outcome, config, options):
                written["dicom"] = paths["dicom"]
            else:
                notes.append("zone.dcm was not written: nothing is dead, and no tumour lies on the series")
        if picture_of_scene is not None:
            problem = picture_of_scene()
            if problem is None:
                written["scene"] = paths["scene"]
            else:
                notes.append(problem)
    summary = summarize(result, outcome, config, title, notes, log)
    write_summary(paths["summary"], summary)
    if options.report:
        picture = written["scene"].read_bytes() if "scene" in written else None
        written["report"] = paths["report"]
        write_report(paths["report"], summary, result, outcome, meshes, picture, stands[:-1], log)
    for key, path in paths.items():
        if key not in written:
            path.unlink(missing_ok=True)
    return written


def _tumor_labels(result: SimulationResult) -> NDArray[np.uint8]:
    """The tumours' cells, counted from 1 in the order of the anatomy's structures."""
    labels = np.zeros(result.anatomy.grid.shape, dtype=np.uint8)
    for number, structure in enumerate(result.anatomy.with_role("tumor"), 1):
        labels[result.anatomy.labels == structure.label] = number
    return labels


def _write_dicom(
    path: Path, result: SimulationResult, outcome: Outcome, config: dict[str, Any], options: OutputConfig
) -> bool:
    """The zone of the chosen criterion and the tumours over the patient's series."""
    # Libraries of DICOM take long to load: for those who have a series.
    from thermosim.anatomy.dicom_series import series_geometry
    from thermosim.report.dicom_seg import MASS, NECROSIS, SegmentSource, write_segmentation

    geometry = series_geometry(Path(options.dicom_source_directory or "").expanduser())
    zone = zone_level_set(result, outcome.criterion, damage_of(config))
    segments = [] if zone is None else [SegmentSource("Ablation zone", NECROSIS, zone)]
    segments += [SegmentSource(tumor.name, MASS, tumor.surface) for tumor in outcome.tumors]
    return write_segmentation(path, segments, geometry, keep_identity=options.keep_patient_identity)
