"""A table as Markdown, CSV or LaTeX. Knows cells; not what they are of."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from fed_lorac.errors import ConfigError
from fed_lorac.reporting.cells import Cell

__all__ = ["FORMATS", "Sheet", "check_format"]

HALF = ", half of 95 % interval"


@dataclass(frozen=True)
class Sheet:
    """A head, rows of as many cells, and what a reader must know beside them."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = field(default=())

    def written(self, format: str = "markdown") -> str:
        """The table as text that ends without a newline: "markdown", "csv" or "latex".

        In CSV a column of numbers has them with all their digits, and half their 95 % interval in a column beside; the
        notes are left out. In LaTeX (package booktabs) they are comments.
        """
        check_format(format)
        return _WRITERS[format](self)

    def as_html(self) -> str:
        """The table and its notes, for a notebook."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.head)
        rows = ("".join(f"<td>{escape(cell.text)}</td>" for cell in row) for row in self.rows)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><ul>{notes}</ul>"


def check_format(format: str) -> None:
    """ConfigError for a format that there is not."""
    if format not in FORMATS:
        raise ConfigError(f"A table is written as {', '.join(FORMATS)}; got {format!r}.")


def _markdown(sheet: Sheet) -> str:
    lines = [_line(sheet.head), _line(["---", *["---:"] * (len(sheet.head) - 1)])]
    lines += [_line(cell.text for cell in row) for row in sheet.rows]
    return "\n".join([*lines, *([""] if sheet.notes else []), *(f"- {note}" for note in sheet.notes)])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _csv(sheet: Sheet) -> str:
    columns: list[list[Any]] = []
    for name, cells in zip(sheet.head, zip(*sheet.rows, strict=True), strict=True):
        numeric = any(cell.number is not None for cell in cells)
        columns.append([name, *(cell.number if numeric else cell.text for cell in cells)])
        if any(cell.half is not None for cell in cells):
            columns.append([name + HALF, *(cell.half for cell in cells)])
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(zip(*columns, strict=True))
    return out.getvalue().removesuffix("\n")


def _latex(sheet: Sheet) -> str:
    body = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * (len(sheet.head) - 1)}}}",
        r"\toprule",
        _tex_line(sheet.head),
        r"\midrule",
        *(_tex_line(cell.text for cell in row) for row in sheet.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join([*body, *(f"% {note}" for note in sheet.notes)])


def _tex_line(cells: Iterable[str]) -> str:
    return f"{' & '.join(map(_tex, cells))} \\\\"


_TEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
}


def _tex(text: str) -> str:
    return re.sub(r"[&%$#_{}\\~^<>±]", lambda found: _TEX[found[0]], text)


_WRITERS: Mapping[str, Callable[[Sheet], str]] = {"markdown": _markdown, "csv": _csv, "latex": _latex}
FORMATS = tuple(_WRITERS)
