"""Paths shrink to names, everything else stays; the YAML text reads back the same."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from thermosim.report.provenance import Anonymizer, basename, versions, yaml_text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("read /home/jane/liver.nii.gz, 3 labels", "read liver.nii.gz, 3 labels"),
        ("read C:\\Users\\jane\\liver.nrrd now", "read liver.nrrd now"),
        ("from ~/doe/tumor.vtk", "from tumor.vtk"),
        ("from ../doe/tumor.vtk", "from tumor.vtk"),
        ("from doe/jane/tumor.stl.", "from tumor.stl."),
        ("'/tmp/a b'", "'a b'"),
        ("file:///home/jane/x.json", "x.json"),
        ("2000 W/(m² K) and mL/min/kg, 1/s", "2000 W/(m² K) and mL/min/kg, 1/s"),
        ("doi:10.1088/0031-9155/54/1", "doi:10.1088/0031-9155/54/1"),
        ("https://doi.org/10.1/x", "https://doi.org/10.1/x"),
    ],
)
def test_paths_in_texts(text, clean):
    assert Anonymizer({"anatomy": {"path": "/tmp/a b"}}).text(text) == clean


@pytest.mark.parametrize("directory", ["", ".", "/", "./", "~/", "../"])
def test_a_directory_without_a_name_leaves_texts_alone(directory):
    anonymizer = Anonymizer({"anatomy": {"directory": directory}})
    assert anonymizer.text("liver: 2 of 3 parts, 1500 W/(m² K)...") == "liver: 2 of 3 parts, 1500 W/(m² K)..."


def test_a_known_path_with_blanks_is_found_in_notes():
    path = "/data/Jane Doe/CT 1/liver.nii.gz"
    anonymizer = Anonymizer(
        {"anatomy": {"path": path, "surfaces": {"liver": {"file": "Doe Jane/liver.vtk"}}}}
    )
    assert anonymizer.text(f"label 3 of {path} is empty") == "label 3 of liver.nii.gz is empty"
    assert anonymizer.text("Doe Jane/liver.vtk is open") == "liver.vtk is open"


def test_paths_in_the_configuration():
    config = {
        "anatomy": {"path": "relative/doe/seg.nrrd", "directory": "C:\\doe\\case1\\"},
        "output": {"directory": "runs/doe/1"},
        "resume": None,
        "list": [{"file": "a/b/c.vtk"}],
        "source": "doi:10.1/2, table 3/4",
        "value": 3.5,
    }
    assert Anonymizer(config).config(config) == {
        "anatomy": {"path": "seg.nrrd", "directory": "case1"},
        "output": {"directory": "1"},
        "resume": None,
        "list": [{"file": "c.vtk"}],
        "source": "doi:10.1/2, table 3/4",
        "value": 3.5,
    }
    assert basename("/") == "."


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
)
trees = st.dictionaries(
    st.text(min_size=1, max_size=8, alphabet=st.characters(codec="ascii", exclude_categories=["Cc"])),
    st.recursive(
        scalars, lambda c: st.lists(c, max_size=3) | st.dictionaries(st.sampled_from("abc"), c, max_size=3)
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)  # enough for every kind of scalar, in two seconds
@given(trees)
def test_yaml_reads_back_the_same(tree):
    assert yaml.safe_load(yaml_text(tree)) == tree


def test_yaml_keeps_numbers_numbers():
    tree = {"a": 1e-6, "b": 7.39e39, "c": math.inf, "d": -0.0, "e": 5e-05}
    assert yaml.safe_load(yaml_text(tree)) == tree
    assert isinstance(yaml.safe_load(yaml_text({"a": 1e-6}))["a"], float)
    assert math.isnan(yaml.safe_load(yaml_text({"a": math.nan}))["a"])


def test_versions_name_what_shapes_a_result():
    assert {"python", "thermosim", "numpy", "h5py"} <= set(versions())
