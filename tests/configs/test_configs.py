"""Every option of every group composes, and mistakes are refused by the name of the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from thermosim.build import load_case
from thermosim.errors import InputError
from thermosim.resources import config_directory

GROUPS = (
    "anatomy",
    "tissue",
    "grid",
    "vessels",
    "applicators",
    "layout",
    "protocol",
    "damage",
    "solver",
    "backend",
    "output",
)
# What an option cannot know by itself.
NEEDS = {
    "label_map": ["anatomy.path=patient.nii.gz", "+anatomy.segments={1:{tissue:tumor,role:tumor}}"],
    "surfaces": [
        "anatomy.directory=meshes",
        "+anatomy.surfaces={tumor:{file:t.stl,tissue:tumor,role:tumor}}",
    ],
    "from_file": ["layout.path=plan.mrk.json"],
}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (config_directory() / group).glob("*.yaml"))


def test_the_groups_are_those_of_the_readme():
    found = {path.name for path in config_directory().iterdir() if path.is_dir()}
    assert found == {*GROUPS, "rules", "experiment", "hydra"}


@pytest.mark.parametrize(("group", "option"), [(g, o) for g in GROUPS for o in options(g)])
def test_every_option_composes_and_passes_its_checks(group, option):
    case = load_case("demo", [f"{group}={option}", *NEEDS.get(option, [])])
    assert group in case.settings


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes_and_names_itself(experiment):
    case = load_case(experiment, NEEDS.get(experiment, []))
    assert case.title != "untitled"


@pytest.mark.parametrize("experiment", options("experiment"))
def test_experiments_hold_deltas_only(experiment):
    path = config_directory() / "experiment" / f"{experiment}.yaml"
    assert path.read_text().startswith("# @package _global_\n")
    written = yaml.safe_load(path.read_text())
    base = load_case(None, []).settings
    for group, values in written.items():
        if isinstance(values, dict) and group != "anatomy":
            assert set(values) < set(base[group]), f"{experiment} restates the whole group {group}"


def test_the_demo_is_what_the_readme_says():
    config = load_case().config
    assert (config.grid.spacing_mm, config.grid.size_mm) == (1.0, [128.0, 128.0, 128.0])
    assert config.layout.n_needles == 3
    assert sum(segment.duration_min for segment in config.protocol.segments) == 12.0
    assert [tumor.diameter_mm for tumor in config.anatomy.tumors] == [30.0]


def test_every_number_of_a_physical_group_has_a_comment_or_a_source():
    for group in ("grid", "vessels", "applicators", "protocol", "damage"):
        for path in (config_directory() / group).glob("*.yaml"):
            for line in Path(path).read_text().splitlines():
                value = line.partition(":")[2].strip()
                if value[:1].isdigit() and "." in value.split("#")[0]:
                    above = path.read_text().splitlines()
                    before = above[above.index(line) - 1]
                    assert "#" in line or before.strip().startswith("#"), f"{path.name}: {line}"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("grid.spacing_mm=wide", ["grid.spacing_mm", "wide", "Float"]),
        ("grid.spacin=1", ["spacin", "GridConfig"]),
        ("anatomy.sed=3", ["sed", "PhantomAnatomyConfig"]),
        ("anatomy.seed=x", ["anatomy.seed", "Integer"]),
        ("tissue.tissues.liver.density=heavy", ["density", "heavy"]),
        ("tissue.tissues.liver.weight=1", ["weight"]),
        ("protocol.segments=[{duration_min:long}]", ["duration_min", "long"]),
        ("protocol.segments=[{duration:1}]", ["duration", "SegmentConfig"]),
        ("layout.needles=[{name:a,tip:[0,0,0]}]", ["tip"]),
        ("output.reprot=false", ["reprot"]),
        ("vessels=warm", ["vessels", "warm", "isothermal"]),
        ("experimnt=quick", ["experimnt"]),
    ],
)
def test_wrong_types_and_unknown_keys_name_the_key(override, words):
    with pytest.raises(InputError) as caught:
        load_case("demo", [override])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("grid.spacing_mm=0", ["grid.spacing_mm=0", "positive"]),
        ("grid.spacing_mm=-1", ["grid.spacing_mm=-1", "positive"]),
        ("grid.spacing_mm=nan", ["grid.spacing_mm=nan"]),
        ("grid.size_mm=[1,2]", ["grid.size_mm", "three"]),
        ("tissue.tissues.liver.thermal_conductivity=0", ["liver.thermal_conductivity=0", "positive"]),
        ("tissue.tissues.liver.density=-1", ["liver.density=-1", "positive"]),
        ("tissue.tissues.liver.specific_heat_capacity=nan", ["specific_heat_capacity=nan"]),
        ("tissue.tissues.liver.electrical_conductivity=-0.2", ["electrical_conductivity=-0.2"]),
        ("tissue.tissues.liver.perfusion_rate=-1", ["perfusion_rate=-1", "at least 0"]),
        ("protocol.segments=[]", ["protocol.segments", "at least one"]),
        ("protocol.segments=[{duration_min:0}]", ["protocol.segments[0].duration_min=0", "positive"]),
        ("protocol.segments=[{duration_min:1,drive:turbo}]", ["turbo", "together", "switching"]),
        ("protocol.generator.mode=magic", ["magic", "constant_power"]),
        ("protocol.generator.power=-5", ["protocol.generator.power=-5"]),
        ("protocol.generator.power=250", ["protocol.generator.power=250", "at most 200"]),
        ("protocol.generator.minimum_power=300", ["minimum_power=300", "maximum_power=200"]),
        ("protocol.ground=ceiling", ["protocol.ground='ceiling'", "far_field"]),
        ("vessels.model=frozen", ["vessels.model='frozen'", "isothermal"]),
        ("damage.criterion=hope", ["damage.criterion='hope'", "arrhenius"]),
        ("applicators.radius_mm=0", ["applicators.radius_mm=0", "positive"]),
        ("layout.frame=table", ["layout.frame='table'", "patient"]),
        ("layout.minimum_gap_mm=-1", ["layout.minimum_gap_mm=-1"]),
        ("anatomy.tumors=[]", ["anatomy.tumors"]),
        ("solver.maximum_time_step=0", ["solver.maximum_time_step=0"]),
        ("backend.name=tpu", ["backend.name='tpu'", "cuda"]),
    ],
)
def test_senseless_values_are_refused_with_value_limit_and_remedy(override, words):
    with pytest.raises(InputError) as caught:
        load_case("demo", ["protocol=twelve_minutes_impedance", override])  # the generator with most settings
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


SEGMENT = "+anatomy.segments={1:{tissue:%s,role:%s}}"


@pytest.mark.parametrize(
    ("segment", "words"),
    [
        (SEGMENT % ("unobtainium", "tumor"), ["unobtainium", "liver"]),
        (SEGMENT % ("liver", "pet"), ["'pet'", "tumor"]),
        (SEGMENT % ("liver", "organ"), ["no tumour"]),
    ],
)
def test_structures_of_a_label_map_are_checked_before_the_file_is_read(segment, words):
    with pytest.raises(InputError) as caught:
        load_case("demo", ["anatomy=label_map", "anatomy.path=nowhere.nii.gz", segment])
    for word in words:
        assert word in str(caught.value)
