"""Files and page of `thermosim margin`: the margin of an observed ablation."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.dicom_series import series_geometry
from thermosim.anatomy.grid import Grid
from thermosim.config_margin import FILE_KEYS, MarginOutputConfig
from thermosim.errors import InputError
from thermosim.outcome.observation import Observation
from thermosim.report import page
from thermosim.report.atomic import replacing, write_text
from thermosim.report.dicom_seg import MASS, NECROSIS, SegmentSource, write_segmentation
from thermosim.report.fusion_section import fusion_section, fusion_summary
from thermosim.report.margin_mesh import write_margin_mesh
from thermosim.report.meshes import (
    LIVER_COLOR,
    LIVER_TRIANGLES,
    SceneMesh,
    simplified,
    tumor_meshes,
    zone_meshes,
)
from thermosim.report.nifti import write_margin as write_margin_volume
from thermosim.report.nifti import write_zone
from thermosim.report.observed_slices import observed_volume
from thermosim.report.page_data import scene_data
from thermosim.report.provenance import Anonymizer, now, versions, yaml_text
from thermosim.report.scene import drawing
from thermosim.report.summary import plain, tumor_summary, write_summary, zone_summary
from thermosim.report.tables import margin_tables, number, percent, safe, table
from thermosim.report.verdict import verdict

FORMAT = "thermosim-margin/1"

FILES = {
    "summary": "summary.json",
    "config": "config.yaml",
    "zone": "zone.nii.gz",
    "margin": "margin.nii.gz",
    "dicom": "zone.dcm",
    "mesh": "margin.vtp",
    "transform": "transform.tfm",
    "scene": "scene.png",
    "report": "report.html",
}

CONTOURS = (("zone", "#ffe14d"), ("tumor", "#4fdcff"), ("liver", "#ff9f80"))

DISCLAIMER = (
    "thermosim is a research tool, not a medical device. This margin must not be used to decide on, plan or "
    "guide the treatment of a patient."
)

LIMITS = (
    "The margin is only as right as the two outlines. How a tumour or a zone is outlined differs between "
    "people and programs by one to two millimetres.",
    "The tumour is invisible in the image after treatment, and the zone did not exist before it: where the "
    "one lies in the other is known only as well as the two images lie over each other.",
    "Ablated tissue shrinks, by 12 to 22 % in length where it was heated to 60 to 95 °C. The zone in the "
    "image is then smaller than what was killed, and the margin may be larger than it looks; how far the "
    "tumour itself was pulled in is not known.",
    "The border of the zone in an image is not the border of death: contrast marks where blood no longer "
    "flows.",
)


def summarize_margin(observation: Observation, config: Mapping[str, Any], title: str) -> dict[str, Any]:
    """All figures as plain values; names are those of a simulation's summary where they mean the same."""
    inputs, tumor = observation.inputs, observation.tumor
    anonymizer = Anonymizer(config)
    return plain(  # type: ignore[no-any-return]
        {
            "format": FORMAT,
            "title": anonymizer.text(title),
            "created": now(),
            "disclaimer": DISCLAIMER,
            "criterion": "observed",
            "tumors": [
                {
                    **tumor_summary(tumor, verdict(tumor)),
                    "thinnest_point_after_lps_mm": 1e3
                    * observation.motion.after(tumor.thinnest_point[None])[0],
                }
            ],
            "ablation_zone": {"observed": zone_summary(observation.zone)},
            "fusion": fusion_summary(observation),
            "shrinkage": {
                "linear_fraction": observation.shrinkage,
                "minimal_ablative_margin_without_correction_mm": 1e3 * observation.uncorrected_minimum,
            },
            "images": {
                name: {"shape": grid.shape, "spacing_mm": [1e3 * h for h in grid.spacing]}
                for name, (_, grid) in (("tumor", inputs.tumor), ("ablation", inputs.zone))
            },
            "grid_error_mm": 1e3 * grid_error(observation),
            "run": {"seconds": observation.seconds, "versions": versions(("SimpleITK",))},
            "notes": [anonymizer.text(note) for note in dict.fromkeys(_notes(observation))],
        }
    )


def grid_error(observation: Observation) -> float:
    """How far voxels leave the margin open [m]: what binary masks of balls leave at the worst place.

    0.4 of a voxel along the coarsest axis of each mask, one beside the other; see docs/numerics.md.
    """
    spacings = [max(grid.spacing) for _, grid in (observation.inputs.tumor, observation.inputs.zone)]
    return float(0.4 * np.hypot(spacings[0], spacings[1]))


def _notes(observation: Observation) -> list[str]:
    notes = list(observation.notes)
    if observation.quality is not None:
        notes.extend(observation.quality.warnings)
    if observation.shrinkage > 0:
        more = 100 * (1 / (1 - observation.shrinkage) - 1)
        notes.append(
            f"the zone is enlarged about its centre by {more:.0f} % to correct for shrinkage; without it the "
            f"thinnest margin is {1e3 * observation.uncorrected_minimum:.1f} mm"
        )
    error = grid_error(observation)
    if abs(observation.tumor.all_around.minimum) < error:
        notes.append(
            f"the thinnest margin is smaller than what the voxels leave open ({1e3 * error:.1f} mm); "
            "thinner slices would tell whether the tumour is covered"
        )
    return notes


def write_margin(
    directory: Path,
    observation: Observation,
    summary: Mapping[str, Any],
    config: Mapping[str, Any],
    options: MarginOutputConfig,
) -> dict[str, Path]:
    """Write what `options` asks for, each file whole or not at all; returns the files by key.

    Files of these names from an earlier run that this one does not write are removed.

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
    written = {key: paths[key] for key in ("summary", "config")}
    notes: list[str] = []
    meshes = _meshes(observation) if options.scene or options.report else []
    with drawing(paths["scene"], meshes) if options.scene else nullcontext() as picture_of_scene:
        write_text(paths["config"], yaml_text(_without_names(config, options.file_names)))
        if options.nifti:
            written["zone"] = paths["zone"]
            mask, grid = zone_on_tumor_grid(observation)
            write_zone(paths["zone"], mask, grid)
            written["margin"] = paths["margin"]
            write_margin_volume(paths["margin"], [observation.tumor], grid)
        if options.dicom and _write_dicom(paths["dicom"], observation, config, options):
            written["dicom"] = paths["dicom"]
        if options.mesh:
            written["mesh"] = paths["mesh"]
            write_margin_mesh(paths["mesh"], observation.tumor)
        if observation.motion.kind != "none":
            written["transform"] = paths["transform"]
            _write_transform(paths["transform"], observation)
        if picture_of_scene is not None:
            problem = picture_of_scene()
            if problem is None:
                written["scene"] = paths["scene"]
            else:
                notes.append(problem)
    full = {**summary, "notes": [*summary["notes"], *notes]}
    write_summary(paths["summary"], full)
    if options.report:
        picture = written["scene"].read_bytes() if "scene" in written else None
        written["report"] = paths["report"]
        write_text(paths["report"], margin_page(observation, full, meshes, picture))
    for key, path in paths.items():
        if key not in written:
            path.unlink(missing_ok=True)
    return written


def _write_dicom(
    path: Path, observation: Observation, config: Mapping[str, Any], options: MarginOutputConfig
) -> bool:
    """The tumour and the zone, fused and corrected, over the series of the CT before treatment."""
    geometry = series_geometry(Path(str(config["ct_before"])).expanduser())
    segments = [
        SegmentSource("Ablation zone", NECROSIS, observation.zone_shape.level),
        SegmentSource("Tumor", MASS, observation.tumor.surface),
    ]
    return write_segmentation(path, segments, geometry, keep_identity=options.keep_patient_identity)


def zone_on_tumor_grid(observation: Observation) -> tuple[NDArray[np.bool_], Any]:
    """The zone, fused and corrected, on the voxels of the tumour's image."""
    grid = observation.inputs.tumor[1]
    level = observation.zone_shape.level
    mask = np.zeros(grid.shape, dtype=bool)
    index = grid.indices(observation.zone_shape.surface.points)
    low = np.clip(np.floor(index.min(axis=0)).astype(int) - 1, 0, grid.shape)
    high = np.clip(np.ceil(index.max(axis=0)).astype(int) + 2, 0, grid.shape)
    if np.all(high > low):
        cells = np.stack(
            np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), -1
        )
        points = grid.points(cells)
        values = level.sample(points.reshape(-1, 3)).reshape(points.shape[:-1])
        inside = (values > 0) & level.grid.contains(points)
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = inside
    return mask, grid


def _write_transform(path: Path, observation: Observation) -> None:
    import SimpleITK as sitk

    with replacing(path) as temporary:
        sitk.WriteTransform(observation.motion.transform, str(temporary))


def _without_names(config: Mapping[str, Any], keep: bool) -> Any:
    """The case without paths, and without names of files unless they are wanted."""
    shown = Anonymizer(config).config(config)
    if not keep:
        for key in FILE_KEYS:
            *groups, last = key.split(".")
            place = shown
            for group in groups:
                place = place[group]
            if place[last] is not None:
                place[last] = "given"
    return shown


# ---------------------------------------------------------------------------- the page


def _meshes(observation: Observation) -> list[SceneMesh]:
    meshes = []
    liver = _liver_surface(observation)
    if liver is not None:
        light = simplified(liver, LIVER_TRIANGLES)
        meshes.append(SceneMesh("liver", "Liver", "liver", LIVER_COLOR, 0.18, light.points, light.triangles))
    meshes.extend(tumor_meshes(observation.tumor, observation.tumor.margin))
    meshes.extend(zone_meshes(observation.zone_shape.surface))
    return meshes


def _liver_surface(observation: Observation) -> Any:
    """The whole liver as a surface for pictures."""
    from thermosim.outcome.observed import observed_shape

    if observation.liver is None:
        return None
    mask, grid = observation.liver
    strides = [max(1, round(2.5e-3 / h)) for h in grid.spacing]
    light = Grid(
        mask[tuple(slice(None, None, s) for s in strides)].shape,
        tuple(s * h for s, h in zip(strides, grid.spacing, strict=True)),  # type: ignore[arg-type]
        grid.origin,
        grid.direction,
    )
    try:
        return observed_shape(
            mask[tuple(slice(None, None, s) for s in strides)], light, "liver", 8000
        ).surface
    except InputError:  # too thin to be drawn
        return None


def margin_page(
    observation: Observation, summary: Mapping[str, Any], meshes: list[SceneMesh], picture: bytes | None
) -> str:
    """The page as text; every number shown comes from `summary`."""
    volume = observed_volume(observation)
    contours = [pair for pair in CONTOURS if any(mesh.kind == pair[0] for mesh in meshes)]
    names = {"zone": "Ablation zone", "tumor": "Tumour", "liver": "Liver"}
    has_ct = bool(volume["images"])
    intro = (
        "Outlines over the CTs, in the frame before treatment."
        if len(volume["images"]) > 1
        else f"Outlines {'over the CT' if has_ct else 'of the masks'}, in the frame before treatment."
    )
    sections = [
        _header(observation, summary),
        *(_verdict(tumor, summary) for tumor in summary["tumors"]),
        page.scene(
            "Tumour and ablation zone in space", picture, "Ablation zone and tumour coloured by margin"
        ),
        "<p class='muted'>Margin: how far the ablation zone reaches beyond the tumour.</p>",
        page.margin_legend(),
        page.slices(intro, [(kind, names[kind], color) for kind, color in contours]),
        page.margins([observation.tumor]),
        fusion_section(observation, summary),
        "<h2>Numbers</h2>",
        *margin_tables(summary),
        _zone_table(summary),
        page.limits(
            "What the number does not know",
            [*_open(observation, summary), *LIMITS],
            summary["notes"],
            DISCLAIMER,
        ),
    ]
    return page.document(
        summary["title"], sections, scene_data(meshes, [observation.tumor], contours, volume)
    )


def _header(observation: Observation, summary: Mapping[str, Any]) -> str:
    warnings = []
    if observation.quality is not None and observation.quality.warnings:
        warnings.append(("Look at the fusion.", "; ".join(observation.quality.warnings) + "."))
    if observation.zone.touches_box:
        warnings.append(
            ("Cut off.", "The ablation zone reaches the edge of its image; there it ends too early.")
        )
    how = {
        "none": "frames taken as they are",
        "rigid": "images fused by a rigid motion",
        "deformable": "images fused with deformation",
        "landmarks": "images fused by landmarks",
    }[observation.motion.kind]
    subtitle = (
        "Ablative margin of a tumour outlined before treatment in a zone outlined after it; "
        f"{how}. Calculated {safe(summary['created'][:10])}."
    )
    return page.header(summary["title"], subtitle, summary["disclaimer"], warnings)


def _verdict(tumor: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    zone = summary["ablation_zone"]["observed"]
    axes = [zone[f"{name}_axis_mm"] for name in ("long", "middle", "short")]
    facts = [
        (number(tumor["minimal_ablative_margin_mm"], 1, "mm"), "thinnest margin (wanted: 5 mm)"),
        (percent(tumor["surface_fraction_margin_at_least_5mm"]), "of the surface has 5 mm or more"),
        (percent(tumor["surface_fraction_margin_at_least_10mm"]), "has 10 mm or more"),
        (
            number(tumor["residual_volume_ml"], 2, "mL"),
            f"of {number(tumor['volume_ml'], 1, 'mL')} tumour outside the zone",
        ),
        (
            number(zone["volume_ml"], 1, "mL"),
            f"ablation zone, {' × '.join(number(axis, 0) for axis in axes)} mm",
        ),
    ]
    return page.verdict_box(tumor["name"], tumor["verdict"], facts)


def _open(observation: Observation, summary: Mapping[str, Any]) -> list[str]:
    """What this very case leaves open, with its figures."""
    spacing = " and ".join(
        f"{' × '.join(f'{h:g}' for h in np.round(one['spacing_mm'], 2))} mm ({name})"
        for name, one in summary["images"].items()
    )
    texts = [
        f"Voxels of {spacing}: an outline of voxels leaves the thinnest margin open by about "
        f"{summary['grid_error_mm']:.1f} mm at the worst place, far less on average.",
    ]
    errors = None if observation.quality is None else observation.quality.landmark_errors_after
    if errors is not None:
        texts.append(
            f"The fusion is off by {1e3 * errors.mean():.1f} mm on average at {len(errors)} landmarks, "
            f"{1e3 * errors.max():.1f} mm at the worst; a margin below that is not distinguished from none."
        )
    elif observation.motion.kind == "none":
        texts.append(
            "The frames are taken as they are. Between two examinations the liver moves by breathing and "
            "posture, by millimetres to centimetres; none of that is in the margin."
        )
    else:
        texts.append(
            "No landmarks were given, so the error of the fusion at the tumour is not measured. Rigid "
            "fusions of livers are commonly off by some millimetres there; look at the chequerboard around "
            "the tumour."
        )
    return texts


def _zone_table(summary: Mapping[str, Any]) -> str:
    zone = summary["ablation_zone"]["observed"]
    row = [
        "Observed",
        number(zone["volume_ml"]),
        number(zone["long_axis_mm"]),
        number(zone["middle_axis_mm"]),
        number(zone["short_axis_mm"]),
        number(zone["sphericity"], 2),
    ]
    head = ["Ablation zone", "Volume mL", "Long axis mm", "Middle mm", "Short mm", "Sphericity"]
    text = "<h3>Ablation zone</h3>" + table(head, [row])
    shrinkage = summary["shrinkage"]
    if shrinkage["linear_fraction"]:
        text += (
            f"<p>Enlarged to correct for a shrinkage of {percent(shrinkage['linear_fraction'])} in length; "
            "without the correction the thinnest margin is "
            f"{number(shrinkage['minimal_ablative_margin_without_correction_mm'], 1, 'mm')}.</p>"
        )
    point, moved = (
        summary["tumors"][0][key] for key in ("thinnest_point_lps_mm", "thinnest_point_after_lps_mm")
    )
    if summary["fusion"]["method"] == "none":
        return text + f"<p>Thinnest place, LPS mm: {_point(point)}.</p>"
    return text + (
        f"<p>Thinnest place, LPS mm: {_point(point)} in the frame before treatment, {_point(moved)} in the "
        "frame after it.</p>"
    )


def _point(values: Any) -> str:
    return "(" + ", ".join(number(value) for value in values) + ")"
