"""The documents say what the code does: every key with its default, every path, every module."""

from __future__ import annotations

import dataclasses
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from omegaconf import MISSING

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
CONFIGS = [
    import_module(f"thermosim.{path.stem}") for path in sorted((ROOT / "thermosim").glob("config*.py"))
]
CLASSES = [
    kind
    for module in CONFIGS
    for kind in vars(module).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__
]


def default_text(entry: dataclasses.Field[Any]) -> str:
    """The default as the tables write it."""
    value = entry.default
    if value is dataclasses.MISSING:
        assert entry.default_factory is not dataclasses.MISSING
        value = entry.default_factory()
    if dataclasses.is_dataclass(value):
        return "group"
    if value == MISSING:
        return "required"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value)


def rows_of(class_name: str) -> dict[str, list[str]]:
    """The rows of the table under the heading that names a dataclass: key -> other columns."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    sections = re.split(r"^#+ ", text, flags=re.MULTILINE)
    own = [section for section in sections if f"`{class_name}`" in section.partition("\n")[0]]
    assert len(own) == 1, f"{len(own)} headings of docs/configuration.md name {class_name}"
    rows = {}
    for line in own[0].splitlines():
        columns = [column.strip() for column in line.strip().strip("|").split("|")]
        if line.startswith("| `"):
            rows[columns[0].strip("`")] = columns[1:]
    return rows


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_key_is_documented_with_its_default(kind: type) -> None:
    rows = rows_of(kind.__name__)
    entries = {entry.name: entry for entry in dataclasses.fields(kind)}
    assert list(rows) == list(entries)
    for name, (_, default, meaning) in rows.items():
        assert default == default_text(entries[name]), name
        assert meaning or name == "kind", f"{name} has no meaning"


UNITS = {"ml_min": "mL/min", "mm": "mm", "ml": "ml", "min": "min", "deg": "°", "gb": "GB"}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_units_agree_with_the_names_of_keys(kind: type) -> None:
    for name, (unit, _, _) in rows_of(kind.__name__).items():
        ending = "ml_min" if name.endswith("ml_min") else name.rsplit("_", 1)[-1]
        if "_" in name and ending in UNITS:
            assert unit == UNITS[ending], name
        is_number = any(e.name == name and "float" in str(e.type) for e in dataclasses.fields(kind))
        if name.endswith(("temperature", "time", "power", "voltage", "slope", "length_mm")) and is_number:
            assert unit, f"{kind.__name__}.{name} has no unit"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_files_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_of_the_project_that_are_named_exist(document: Path) -> None:
    named = r"`((?:thermosim|tests|kernels|benchmarks|configs|docs)/[\w./-]*\w\.(?:py|cu|h|cpp|yaml|md))"
    for path in re.findall(named, document.read_text()):
        assert (ROOT / path).is_file(), path


def test_every_module_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for path in (ROOT / "thermosim").rglob("*.py"):
        relative = path.relative_to(ROOT / "thermosim")
        if path.name == "__init__.py":
            continue
        section = text if len(relative.parts) == 1 else _room(text, relative.parts[0])
        assert f"`{path.name}`" in section, f"docs/architecture.md does not name {relative}"


def _room(text: str, name: str) -> str:
    """The row of a folder in the architecture's table."""
    rows = [line for line in text.splitlines() if line.startswith(f"| `{name}/`")]
    assert len(rows) == 1, name
    return rows[0]


def test_the_order_of_imports_is_the_one_that_is_checked() -> None:
    contract = (ROOT / ".importlinter").read_text().split("layers =")[1].split("[")[0]
    layers = [re.sub(r"[()]", "", line).strip() for line in contract.strip().splitlines()]
    written = re.search(r"^`(__main__ → .*)`$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    assert written is not None
    stated = [re.sub(r"\s+", " ", layer).strip() for layer in written.group(1).split("→")]
    assert [layer.replace(" | ", " : ").replace(" · ", " : ") for layer in stated] == [
        layer.replace(" | ", " : ") for layer in layers
    ]
