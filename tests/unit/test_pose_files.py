"""Needle poses from files that nobody here wrote, and from those of our own kinds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thermosim.anatomy.markups import read_markups, read_points
from thermosim.applicators.pose_files import read_poses
from thermosim.errors import InputError


def test_older_files_are_ras(data_dir: Path) -> None:
    folder = data_dir / "importers" / "markups"
    (needle,) = read_poses(folder / "L1.fcsv")
    assert needle.target_mm == [-43.3769, -23.1343, 0.0]
    (ruler,) = read_poses(folder / "ruler_M.acsv", order="entry_first")
    assert ruler.name == "M"
    assert ruler.entry_mm == [-173.431, -158.55, 0.0]
    points = read_points(folder / "slicer3.fcsv")
    assert len(points) == 56
    assert points["midsag57"] == pytest.approx([0.0115, -0.0715, -0.0265])


def test_lines_with_labels_units_and_names(tmp_path: Path) -> None:
    points = [
        {"label": "Entry", "position": [1e4, 0, 0]},
        {"label": "somewhere", "position": [0, 0, 9], "positionStatus": "undefined"},
        {"label": "Target", "position": [2e4, 0, 9e4]},
    ]
    line = {"type": "Line", "name": "left one", "coordinateSystem": "RAS", "coordinateUnits": "um"}
    document = {"markups": [line | {"controlPoints": points}, {"type": "Plane", "controlPoints": []}]}
    path = tmp_path / "plan.mrk.json"
    path.write_text(json.dumps(document))
    (needle,) = read_poses(path)
    assert (needle.name, needle.target_mm, needle.entry_mm) == ("left_one", [-20, 0, 90], [-10, 0, 0])


CSV = """name,target_x,target_y,target_z,entry_x,entry_y,entry_z,active_length_mm
a,1,2,3,4,5,60,25
,1,2,3,4,5,70,
"""
YAML = "needles:\n  - {name: a, target_mm: [1, 2, 3], entry_mm: [4, 5, 60], active_length_mm: 25}\n"


def test_csv_and_yaml(tmp_path: Path) -> None:
    table = tmp_path / "plan.csv"
    table.write_text(CSV)
    with pytest.raises(InputError, match="LPS or RAS"):
        read_poses(table)
    first, second = read_poses(table, coordinates="RAS")
    assert (first.target_mm, first.active_length_mm) == ([-1, -2, 3], 25)
    assert (second.name, second.active_length_mm) == ("needle_2", None)
    table.write_text("# coordinateSystem = LPS\n" + CSV)
    assert read_poses(table)[0].entry_mm == [4, 5, 60]
    layout = tmp_path / "layout.yaml"
    layout.write_text(YAML)
    assert read_poses(layout) == read_poses(table)[:1]
    layout.write_text("layout:\n  frame: tumor\n  " + YAML.replace("\n", "\n  "))
    with pytest.raises(InputError, match="frame: patient"):
        read_poses(layout)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.mrk.json", "{", "damaged"),
        ("a.mrk.json", "[" * 100_000, "damaged"),
        ("a.mrk.json", '{"markups": [{"type": "Line", "coordinateSystem": "XYZ"}]}', "must be LPS or RAS"),
        ("a.mrk.json", '{"markups": [{"type": "Line", "controlPoints": [{"position": [1, 2]}]}]}', "three"),
        (
            "a.mrk.json",
            '{"markups": [{"type": "Line", "controlPoints": [{"position": [1, 2, NaN]}]}]}',
            "finite",
        ),
        (
            "a.mrk.json",
            '{"markups": [{"type": "Fiducial", "controlPoints": [{"position": [1, 2, 3]}]}]}',
            "pairs",
        ),
        ("a.fcsv", "# CoordinateSystem = 7\n1,2,3,4\n", "must be LPS"),
        ("a.fcsv", "1,2\n", "damaged"),
        ("a.acsv", "point|1|2|3|1|1\nline|0|9|1|1\n", "damaged"),
        ("a.csv", "# coordinateSystem = LPS\nx,y\n1,2\n", "target_x.* are missing and x, y unknown"),
        (
            "a.csv",
            CSV.replace("60", "sixty").replace("name", "#coordinateSystem=LPS\nname"),
            "not made of numbers",
        ),
        ("a.yaml", "needles: [{}]", "damaged"),
        ("a.yaml", "needles: &a [*a, *a]", "damaged"),
        ("a.yaml", "!!python/object/apply:os.system [echo]", "damaged"),
        ("a.txt", "", "needles are read from"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=rf"{name}.*{message}"):
        read_poses(path)


def test_points_are_found_by_their_label(data_dir: Path) -> None:
    with pytest.raises(InputError, match="two points are called 'Endpoints-1'"):
        read_points(data_dir / "importers" / "markups" / "Endpoints.mrk.json")
    (markup,) = read_markups(data_dir / "importers" / "markups" / "Endpoints.mrk.json")
    assert markup.points.shape == (6, 3)
