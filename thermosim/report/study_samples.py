"""The table of a study: one row a case, written as they end, so that a study can go on."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from thermosim.errors import InputError
from thermosim.report.atomic import write_text

Row = dict[str, str]

KEY = "sample"


def read_samples(path: Path, columns: Sequence[str]) -> dict[int, Row]:
    """Rows kept so far by their number; a last line that was cut short does not count.

    Raises
    ------
    InputError
        When the file has other columns: it is no table of this study.
    """
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    if lines and lines[0] != list(columns):
        raise InputError(f"{path.name} has other columns than this study; choose another output.directory")
    rows = [dict(zip(columns, line, strict=True)) for line in lines[1:] if len(line) == len(columns)]
    return {int(row[KEY]): row for row in rows if row[KEY].isdecimal()}


class Samples:
    """Rows of a study; each new one is on the disk before the next case ends."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, list(columns)
        self.rows = read_samples(path, columns)

    def __enter__(self) -> Samples:
        write_text(self.path, self._text())  # whole lines only, from here on
        self._file = self.path.open("a", encoding="utf-8", newline="")
        return self

    def add(self, row: Row) -> None:
        """Keep one row."""
        self.rows[int(row[KEY])] = row
        self._file.write(_line([row[c] for c in self.columns]))
        self._file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        write_text(self.path, self._text())

    def _text(self) -> str:
        lines = [_line(self.columns)]
        lines += [_line([self.rows[n][c] for c in self.columns]) for n in sorted(self.rows)]
        return "".join(lines)


def _line(values: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()
