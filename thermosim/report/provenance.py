"""Where a result came from, without telling who made it or where their files lie."""

from __future__ import annotations

import math
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("numpy", "scipy", "h5py", "nibabel", "pyvista")
PATH_KEYS = re.compile(r"(^|_)(path|file|directory|folder|dir|resume|root|cache)s?$")
_EXTENSION = r"\.(?:nii|gz|nrrd|nhdr|mha|mhd|vt[kpu]|stl|obj|ply|dcm|json|ya?ml|h5|npz|csv|fcsv|html|png)\b"
_ROOTED = re.compile(r"(?<![\w:/\\])(?:file://|~|\.{1,2}(?=[/\\])|[A-Za-z]:(?=[/\\]))?[/\\][^\s\"'<>|,;()]+")
_RELATIVE = re.compile(rf"(?<![\w:/\\])(?:[^\s\"'<>|,;()/\\]+[/\\])+([^\s\"'<>|,;()/\\]+{_EXTENSION})")
_PLAIN_WORD = re.compile(r"^[A-Za-z_][\w.\-]*$")
_YAML_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


def basename(path: str) -> str:
    """Last part of a path of either kind of system; '.' for a bare root, nothing for nothing."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or ("." if path else "")


class Anonymizer:
    """Takes folders out of texts: paths shrink to the name of the file.

    Values of keys that name a path are always reduced, and those very paths are reduced wherever
    else they occur (notes, titles). Elsewhere anything that looks like a rooted path, or like a
    relative path to a known kind of file, is reduced. Units such as W/(m² K) and links stay.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._known: list[str] = []
        self._collect(config)
        self._known.sort(key=len, reverse=True)

    def _collect(self, value: Any, is_path: bool = False) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                self._collect(item, bool(PATH_KEYS.search(str(key))))
        elif isinstance(value, (list, tuple)):
            for item in value:
                self._collect(item, is_path)
        elif is_path and isinstance(value, str) and basename(value) not in ("", ".", "..", "~", value):
            self._known.append(value)

    def text(self, text: str) -> str:
        """`text` with every path reduced to its last part."""
        for path in self._known:
            text = text.replace(path, basename(path))
        text = _ROOTED.sub(lambda match: basename(match.group(0)), text)
        return _RELATIVE.sub(r"\1", text)

    def config(self, value: Any, key: str = "") -> Any:
        """The same tree of plain values with every path reduced."""
        if isinstance(value, Mapping):
            return {str(k): self.config(v, str(k)) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.config(item, key) for item in value]
        if isinstance(value, str):
            return basename(value) if value and PATH_KEYS.search(key) else self.text(value)
        return value


def versions(more: Sequence[str] = ()) -> dict[str, str]:
    """Versions of Python and of the packages that shape a result, `more` besides the usual ones."""
    # Named by the running code, which may lie in a checkout that was never installed.
    own = str(getattr(sys.modules["thermosim"], "__version__", "unknown"))
    found = {"python": platform.python_version(), "thermosim": own}
    for package in (*PACKAGES, *more):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def now() -> str:
    """Date and time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def yaml_text(value: Any, indent: int = 0) -> str:
    """Plain mappings, lists and scalars as YAML.

    Examples
    --------
    >>> print(yaml_text({"a": [1, 2.5e-6], "b": {"c": None}}), end="")
    a:
      - 1
      - 2.5e-06
    b:
      c: null
    """
    pad = "  " * indent
    entries: list[tuple[str, Any]]
    if isinstance(value, Mapping):
        entries = [(f"{pad}{_scalar(str(key))}:", item) for key, item in value.items()]
    else:
        entries = [(f"{pad}-", item) for item in value]
    lines = []
    for lead, item in entries:
        if isinstance(item, (Mapping, list, tuple)):
            if item:
                lines.append(f"{lead}\n{yaml_text(item, indent + 1)}")
            else:
                lines.append(f"{lead} {'{}' if isinstance(item, Mapping) else '[]'}\n")
        else:
            lines.append(f"{lead} {_scalar(item)}\n")
    return "".join(lines)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return ".nan"
        if math.isinf(value):
            return ".inf" if value > 0 else "-.inf"
        text = repr(value)
        # YAML 1.1 readers take "1e-05" for text; the point makes it a number.
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if _PLAIN_WORD.match(text) and text.lower() not in _YAML_WORDS:
        return text
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"
