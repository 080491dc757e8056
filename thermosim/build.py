"""Composition root: configuration -> Case -> simulation -> Result. The one place that knows both ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thermosim import checks
from thermosim.anatomy.anatomy import Anatomy, AnatomySource, TriangleSurface
from thermosim.anatomy.grid import Grid, Vector
from thermosim.applicators.electrode import Electrode
from thermosim.applicators.layout import check_gaps, check_inside, electrodes_from, exposed_bounds
from thermosim.applicators.protocol import Protocol
from thermosim.composition import compose, composition_message, typed
from thermosim.config import (
    ANATOMY_KINDS,
    AnatomyConfig,
    BlockAnatomyConfig,
    GridConfig,
    LabelMapAnatomyConfig,
    OutputConfig,
    PhantomAnatomyConfig,
    SimulationConfig,
    SurfacesAnatomyConfig,
    register_schemas,
)
from thermosim.errors import InputError
from thermosim.resources import available_cores
from thermosim.units import MILLIMETRE

if TYPE_CHECKING:
    from thermosim.backends.base import Backend
    from thermosim.outcome.results import Outcome
    from thermosim.report.generator_log import GeneratorLog
    from thermosim.simulation import Problem, SimulationResult

RESUME_FILE = "resume.yaml"
CHECKPOINT_FILE = "checkpoint.h5"
MINIMUM_CELLS = 8
"""Fewest cells along an edge of the box."""

Progress = Callable[[Any], None]
"""Called during a run with an object that has `time`, `duration` and `hottest_temperature`."""


@dataclass(frozen=True)
class Case:
    """One treatment, composed and checked, before any data are read.

    `config` is typed; `settings` is the same as plain values, for reports and for resuming.
    """

    config: SimulationConfig
    settings: dict[str, Any]

    @property
    def title(self) -> str:
        return self.config.title


@dataclass(frozen=True)
class Result:
    """What a simulated case returns: fields and traces in `simulation`, zones and margins in `outcome`."""

    case: Case
    simulation: SimulationResult
    outcome: Outcome
    display_surfaces: dict[str, TriangleSurface]
    log: GeneratorLog | None = None  # of a real generator, to compare with

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The figures of summary.json."""
        from thermosim.report.summary import summarize

        return summarize(self.simulation, self.outcome, self.case.settings, self.case.title, log=self.log)

    def save(self, directory: str | Path) -> dict[str, Path]:
        """Write case, fields, summary, report and pictures into `directory`; returns the files by name."""
        from thermosim.report.atomic import write_text
        from thermosim.report.provenance import Anonymizer, yaml_text
        from thermosim.report.writer import write_outputs

        folder = Path(directory)
        files = write_outputs(
            folder,
            self.simulation,
            self.outcome,
            self.display_surfaces,
            self.case.settings,
            self.case.title,
            self.case.config.output,
            self.log,
        )
        files["config"] = folder / "config.yaml"
        write_text(files["config"], yaml_text(Anonymizer(self.case.settings).config(self.case.settings)))
        return files


# ---------------------------------------------------------------------------- config -> Case


def load_case(experiment: str | None = "demo", overrides: Sequence[str] = ()) -> Case:
    """Compose and check a case.

    Parameters
    ----------
    experiment : a name in `configs/experiment`, or None for the bare defaults.
    overrides : as on the command line, such as ``["grid.spacing_mm=2", "vessels=occluded"]``.

    Raises
    ------
    InputError
        For an unknown key or group, a wrong type, or a value out of range.

    Examples
    --------
    >>> load_case("quick", ["grid.spacing_mm=4"]).config.grid.spacing_mm
    4.0
    """
    register_schemas()
    choice = "~experiment" if experiment is None else f"experiment={experiment}"
    return case_from(compose("config", [choice, *overrides]))


def case_from(settings: DictConfig) -> Case:
    """The typed and checked case of a composed configuration."""
    kind = OmegaConf.select(settings, "anatomy.kind")
    if kind not in ANATOMY_KINDS:
        raise InputError(f"anatomy.kind={kind!r} is not known; use one of {', '.join(ANATOMY_KINDS)}")
    try:
        settings = cast(DictConfig, OmegaConf.merge(OmegaConf.structured(SimulationConfig), settings))
        settings.anatomy = OmegaConf.merge(OmegaConf.structured(ANATOMY_KINDS[kind]), settings.anatomy)
    except OmegaConfBaseException as error:
        raise InputError(composition_message(error)) from error
    config, plain = typed(settings, SimulationConfig)
    if isinstance(config.anatomy, LabelMapAnatomyConfig):
        config.anatomy.segments = {str(key): one for key, one in config.anatomy.segments.items()}
    checks.check_case(config)
    return Case(config, plain)


def case_within(settings: DictConfig) -> Case:
    """The case among the keys of a larger composed configuration."""
    return case_from(OmegaConf.masked_copy(settings, [entry.name for entry in fields(SimulationConfig)]))


# ---------------------------------------------------------------------------- Case -> Problem


def anatomy_source(anatomy: AnatomyConfig) -> AnatomySource:
    """Open the patient or phantom of a case."""
    if isinstance(anatomy, PhantomAnatomyConfig):
        from thermosim.anatomy.phantom import PhantomSource

        return PhantomSource(anatomy)
    if isinstance(anatomy, LabelMapAnatomyConfig):
        from thermosim.anatomy.label_map import LabelMapSource

        return LabelMapSource(anatomy)
    if isinstance(anatomy, SurfacesAnatomyConfig):
        from thermosim.anatomy.surfaces import SurfacesSource

        return SurfacesSource(anatomy)
    if isinstance(anatomy, BlockAnatomyConfig):
        from thermosim.anatomy.block import BlockSource

        return BlockSource(anatomy)
    raise InputError(f"anatomy.kind={anatomy.kind!r} is not known; use one of {', '.join(ANATOMY_KINDS)}")


def grid_around(config: GridConfig, electrodes: tuple[Electrode, ...]) -> Grid:
    """The isotropic computing box: `size_mm`, or `margin_mm` around the exposed metal.

    An edge that is no whole number of cells is rounded up; odd counts are rounded up to even ones,
    so that the grid can be coarsened.
    """
    lower, upper = exposed_bounds(electrodes)
    spacing = config.spacing_mm * MILLIMETRE
    if config.size_mm is None:
        size = upper - lower + 2.0 * config.margin_mm * MILLIMETRE
    else:
        size = np.asarray(config.size_mm) * MILLIMETRE
    middle = 0.5 * (lower + upper)
    center = middle if config.center_mm is None else np.asarray(config.center_mm) * MILLIMETRE
    shape = tuple(2 * math.ceil(float(edge) / (2.0 * spacing) - 1e-6) for edge in size)
    if min(shape) < MINIMUM_CELLS:
        raise InputError(
            f"the box of {shape[0]} x {shape[1]} x {shape[2]} cells has fewer than {MINIMUM_CELLS} cells "
            f"along an edge; lower grid.spacing_mm={config.spacing_mm:g} or enlarge grid.size_mm"
        )
    return Grid.box(cast(Vector, tuple(float(c) for c in center)), cast(tuple[int, int, int], shape), spacing)


@dataclass(frozen=True)
class Layout:
    """Where everything stands, before anything is laid on the grid."""

    source: AnatomySource
    electrodes: tuple[Electrode, ...]
    grid: Grid


class Anatomies:
    """Anatomies opened and laid on grids so far, for cases that share them."""

    def __init__(self) -> None:
        self._sources: dict[str, AnatomySource] = {}
        self._on_grids: dict[tuple[Any, ...], Anatomy] = {}

    def source(self, config: AnatomyConfig) -> AnatomySource:
        """The patient or phantom, opened once."""
        key = repr(config)
        if key not in self._sources:
            self._sources[key] = anatomy_source(config)
        return self._sources[key]

    def on_grid(self, case: Case, source: AnatomySource, grid: Grid) -> Anatomy:
        """Its structures on a grid, with centre lines where blood is followed along them."""
        vessels = case.config.vessels
        groups = {s.vessel_group for s in source.structures if s.vessel_group is not None}
        followed = tuple(sorted(g for g in groups if checks.needs_centre_lines(vessels, g)))
        key = (repr(case.config.anatomy), grid, vessels.minimum_diameter_mm, followed)
        if key not in self._on_grids:
            anatomy = source.rasterize(grid, vessels.minimum_diameter_mm * MILLIMETRE)
            lumens = [
                replace(lumen, tree=source.vessel_tree(lumen.group)) if lumen.group in followed else lumen
                for lumen in anatomy.lumens
            ]
            self._on_grids[key] = replace(anatomy, lumens=tuple(lumens))
        return self._on_grids[key]


def lay_out(case: Case, anatomies: Anatomies | None = None) -> Layout:
    """Open the anatomy, place the needles and the box, and check all that needs no fields."""
    config = case.config
    source = (anatomies or Anatomies()).source(config.anatomy)
    for structure in source.structures:
        checks.check_tissue_name(f"the tissue of {structure.name!r}", structure.tissue, config.tissue)
    together = config.protocol.serial == "none"
    electrodes = electrodes_from(config.layout, config.applicators, source.tumor_centers(), together)
    from thermosim.applicators.pose_checks import check_poses  # PyVista takes long to import

    check_poses(config.layout, electrodes, source)
    protocol = Protocol.of(config.protocol, electrodes)  # refuses what contradicts itself
    grid = grid_around(config.grid, _everywhere(protocol, electrodes))
    _check_poses(case, protocol, electrodes, grid)
    _check_memory(case, grid.shape, protocol.most_standing)
    return Layout(source, electrodes, grid)


def lay_out_box(case: Case, anatomies: Anatomies | None = None) -> tuple[tuple[int, int, int], int]:
    """Cells of the box and electrodes in it at once, without asking for memory."""
    config = case.config
    source = (anatomies or Anatomies()).source(config.anatomy)
    together = config.protocol.serial == "none"
    electrodes = electrodes_from(config.layout, config.applicators, source.tumor_centers(), together)
    protocol = Protocol.of(config.protocol, electrodes)
    return grid_around(config.grid, _everywhere(protocol, electrodes)).shape, protocol.most_standing


def _everywhere(protocol: Protocol, electrodes: tuple[Electrode, ...]) -> tuple[Electrode, ...]:
    """The electrodes at all places they have during the treatment."""
    return (*electrodes, *(e for segment in protocol.segments for e in segment.electrodes(electrodes)))


def _check_poses(case: Case, protocol: Protocol, electrodes: tuple[Electrode, ...], grid: Grid) -> None:
    """Refuse needles that leave the box in any segment, or touch others that stand there with them."""
    check_inside(electrodes, grid)
    for segment in protocol.segments:
        standing = segment.electrodes(electrodes)
        if case.config.protocol.serial != "none":
            check_gaps(standing, case.config.layout.minimum_gap_mm * MILLIMETRE)
        if segment.pulled_back > 0:
            pulled = segment.pulled_back / MILLIMETRE
            when = f" (pulled back by {pulled:g} mm in segment {segment.number + 1} of the treatment)"
            check_inside(standing, grid, when)


def _check_memory(case: Case, shape: tuple[int, int, int], n_electrodes: int) -> None:
    from thermosim.simulation import estimate_memory

    checks.check_memory(estimate_memory(shape, n_electrodes), shape, case.config.solver.memory_limit_gb)


def build_problem(case: Case, anatomies: Anatomies | None = None) -> tuple[Problem, AnatomySource]:
    """Lay the anatomy on the grid: everything the simulation needs, and the source for pictures.

    `anatomies`: what cases that share an anatomy, or a grid too, have made of it.
    """
    from thermosim.simulation import Problem

    config = case.config
    anatomies = anatomies or Anatomies()
    layout = lay_out(case, anatomies)
    known = sorted({s.vessel_group for s in layout.source.structures if s.vessel_group is not None})
    for group in config.vessels.groups:
        if group not in known:
            raise InputError(
                f"vessels.groups.{group}: this anatomy has no such group of vessels; "
                + (f"it has {', '.join(known)}" if known else "it has no vessels")
            )
    anatomy = anatomies.on_grid(case, layout.source, layout.grid)
    notes = _drive_notes(config, layout.electrodes)
    if notes:
        anatomy = replace(anatomy, notes=(*anatomy.notes, *notes))
    tumors = [structure.label for structure in anatomy.with_role("tumor")]
    if tumors and not np.isin(anatomy.labels, tumors).any():
        raise InputError(
            "no tumour lies in the computing box around the needles; check layout.frame and the "
            "needles' points (LPS, mm)"
        )
    problem = Problem(
        anatomy,
        layout.electrodes,
        config.tissue,
        config.vessels,
        config.protocol,
        config.damage,
        config.solver,
    )
    return problem, layout.source


def _drive_notes(config: SimulationConfig, electrodes: tuple[Electrode, ...]) -> list[str]:
    """Bipolar needles that a protocol drives as monopolar ones: allowed, and seldom meant."""
    alone = [str(i) for i, segment in enumerate(config.protocol.segments) if segment.drive != "bipolar"]
    if not alone or not any(electrode.pole for electrode in electrodes):
        return []
    return [
        f"protocol.segments {', '.join(alone)}: the poles of the bipolar needles work against the ground, as "
        "monopolar electrodes; for current from pole to pole set protocol.ground=none and drive: bipolar"
    ]


# ---------------------------------------------------------------------------- Case -> Result


def simulate(
    case: Case,
    *,
    callbacks: Sequence[Progress] = (),
    directory: str | Path | None = None,
    resume: bool = False,
    turn: int = 0,
    announce: Callable[[str], None] | None = None,
    backend: Backend | None = None,
    anatomies: Anatomies | None = None,
) -> Result:
    """Simulate one case.

    Parameters
    ----------
    case : from `load_case`.
    callbacks : called with the progress during the run.
    directory : where checkpoints go, so that the run can be resumed; None keeps none.
    resume : go on from the checkpoint in `directory`.
    turn : number of the job among those side by side, by which `backend.device=-1` shares out GPUs.
    announce : told which backend was chosen, before anything heavy.
    backend : where, instead of what the case chooses.
    anatomies : shared with other cases.

    Raises
    ------
    InputError, BackendError
        Before any heavy work.
    NumericalError
        When a field becomes non-finite or a solver does not converge.
    Interrupted
        When the user stops the run; the checkpoint stays in `directory`.
    """
    from thermosim import simulation
    from thermosim.backends import choice, select

    config = case.config
    log = _generator_log(config.output)
    if backend is None:
        backend = select(config.backend.name, config.backend.threads, config.backend.device, turn)
    if announce is not None:
        announce(choice(config.backend.name, backend))
    problem, source = build_problem(case, anatomies)
    if config.output.dicom_source_directory is not None:
        _check_series(Path(config.output.dicom_source_directory).expanduser(), problem.anatomy.grid)
    checkpoint = None
    if directory is not None:
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / CHECKPOINT_FILE
        if not resume:
            checkpoint.unlink(missing_ok=True)
            _store_for_resuming(case, folder)
    run = simulation.run(problem, backend, callbacks=tuple(callbacks), checkpoint=checkpoint, resume=resume)
    from thermosim.outcome.assess import assess  # slow to import: the first step need not wait for it

    outcome = assess(
        run, config.damage, threads=backend.threads or config.backend.threads or available_cores()
    )
    return Result(case, run, outcome, source.display_surfaces(), log)


def _generator_log(output: OutputConfig) -> GeneratorLog | None:
    """What a real generator recorded, where the case names it."""
    if output.generator_log_file is None:
        return None
    from thermosim.report.generator_log import read_generator_log

    return read_generator_log(output.generator_log_file)


def _check_series(directory: Path, grid: Grid) -> None:
    """Refuse a DICOM series that does not cover the grid; libraries of images load for those who have one."""
    from thermosim.anatomy.dicom_series import series_geometry
    from thermosim.report.dicom_seg import check_source

    check_source(series_geometry(directory), grid)


def _store_for_resuming(case: Case, folder: Path) -> None:
    """Keep the whole case beside its checkpoint, with paths that hold from any directory."""
    settings = OmegaConf.create(case.settings)
    for key in (
        "anatomy.path",
        "anatomy.ct_path",
        "anatomy.directory",
        "layout.path",
        "output.generator_log_file",
        "output.dicom_source_directory",
    ):
        value = OmegaConf.select(settings, key)
        if value is not None and not OmegaConf.select(settings, "anatomy.dataset"):
            OmegaConf.update(settings, key, str(Path(value).expanduser().absolute()))
    OmegaConf.save(settings, folder / RESUME_FILE)


def interrupted_case(directory: str | Path) -> Case:
    """The case of the interrupted run in `directory`.

    Raises
    ------
    InputError
        When there is nothing to resume.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise InputError(
            f"resume={directory}: there is no such directory; give the output directory of a run"
        )
    if not (folder / RESUME_FILE).is_file() or not (folder / CHECKPOINT_FILE).is_file():
        raise InputError(
            f"resume={directory}: no interrupted run lies there; it ended, or never got to a checkpoint"
        )
    import yaml

    try:
        settings = OmegaConf.load(folder / RESUME_FILE)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise InputError(f"resume={directory}: {RESUME_FILE} is damaged; start the run anew") from error
    if not isinstance(settings, DictConfig):
        raise InputError(f"resume={directory}: {RESUME_FILE} is damaged; start the run anew")
    return case_from(settings)


def way_on(directory: str | Path) -> str:
    """What to do about a run that was stopped in `directory`: resume it if there is a checkpoint."""
    folder = Path(directory)
    if (folder / CHECKPOINT_FILE).is_file() and (folder / RESUME_FILE).is_file():
        return f"go on with: thermosim simulate resume={directory}"
    (folder / RESUME_FILE).unlink(missing_ok=True)
    return "there is no checkpoint yet, start it again"


def finish(directory: str | Path) -> None:
    """Remove what only an interrupted run needs."""
    for name in (CHECKPOINT_FILE, RESUME_FILE):
        (Path(directory) / name).unlink(missing_ok=True)
