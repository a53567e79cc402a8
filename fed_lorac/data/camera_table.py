"""A table of images that cameras took: a CSV file with a header. Knows rows; never opens an image.

    path,label,camera,time,split
    north/0001.jpg,car,north,2024-05-01T06:00:00,train

`path` is seen from the table's own folder. `time` is a number in all rows, or in all a date and time of ISO 8601;
without it a camera's images come in the order of its rows. `split` is train or test; without it the latest are
measured on.
"""

import csv
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any

from fed_lorac.data.camera_files import CameraFiles, Shot, camera_files
from fed_lorac.data.class_names import in_form_c, one_line_name
from fed_lorac.errors import DataError

__all__ = ["read_table"]

NEEDED, OPTIONAL = ("path", "label", "camera"), ("time", "split")
_NAMED = 10  # rows that an error names

Row = tuple[int, Mapping[str, str]]  # its line, and the words of its columns


def read_table(table: Path) -> CameraFiles:
    """List the images of a table without opening one. Columns that it has beyond these are not read, and it is said.

    Raises:
        DataError: a table that is unreadable, lacks a column or an entry, or names an image twice or none; times that
            are not all numbers or all ISO 8601.
    """
    rows = list(_rows(table))
    if not rows:
        raise DataError(f"A table of images must have a row for each; {table} has none. Add them.")
    when = _in_order(table, rows)
    files = [os.path.normpath(table.parent / row["path"]) for _, row in rows]
    about = _about(table, rows, files)
    _check_once(table, rows, files)
    return camera_files(
        table.parent,
        (
            Shot(file, in_form_c(row["label"]), in_form_c(row["camera"]), row["split"] == "test", at, fact)
            for (_, row), file, at, fact in zip(rows, files, when, about, strict=True)
        ),
    )


def _rows(table: Path) -> Iterator[Row]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_header(table, reader.fieldnames or ())
            for row in reader:
                yield reader.line_num, _checked(table, reader.line_num, row)
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(
            f"A table of images must be a readable CSV file in UTF-8; {table}: {error}. Save it anew."
        ) from error


def _check_header(table: Path, header: Sequence[str]) -> None:
    if missing := [name for name in NEEDED if name not in header]:
        raise DataError(
            f"A table of images must have the columns {', '.join(NEEDED)} in its first line, commas between; {table} "
            f"lacks {', '.join(missing)}. It has {', '.join(map(repr, header)) or 'none'}. Add or rename them."
        )
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"A table's columns must have different names; {table} has {twice[0]!r} twice. Rename one.")
    meant = {name: name.strip().casefold() for name in header if name not in NEEDED + OPTIONAL}
    if near := [name for name, its in meant.items() if its in OPTIONAL]:
        raise DataError(
            f"A table's columns are called {', '.join(NEEDED + OPTIONAL)}; {table} has {near[0]!r}. Rename it to "
            f"{meant[near[0]]!r}, or to something else if it is not meant."
        )
    if others := list(meant):
        logging.getLogger(__name__).warning("%s: these columns are not read: %s", table, ", ".join(others))


def _checked(table: Path, line: int, row: Mapping[Any, Any]) -> dict[str, str]:
    if None in row or None in row.values():
        raise DataError(f"Every row must have as many entries as the header; {table} line {line} has not. Fix it.")
    found = {name: str(row.get(name, "")).strip() for name in NEEDED + OPTIONAL}
    if lacking := [name for name in NEEDED if not found[name]]:
        raise DataError(f"Every row must have a {lacking[0]}; {table} line {line} has none. Add it.")
    if not all(one_line_name(found[name]) for name in NEEDED):
        raise DataError(f"Paths and names must be text of one line; {table} line {line} has other characters. Fix it.")
    if found["split"] not in ("", "train", "test"):
        raise DataError(
            f"A split must be train or test; {table} line {line} has {found['split']!r}. Write one of them."
        )
    return found


def _in_order(table: Path, rows: Sequence[Row]) -> list[Any]:
    """Of each row what it is sorted by: a number, a moment, or its place in the table."""
    if not any(row["time"] for _, row in rows):
        return list(range(len(rows)))
    made = [(_number(row["time"]), _moment(row["time"])) for _, row in rows]
    for kind in zip(*made, strict=True):
        aware = {getattr(one, "tzinfo", None) is None for one in kind}
        if all(one is not None for one in kind) and len(aware) == 1:
            return list(kind)
    first = 0 if made[0][0] is not None else 1
    odd = next((i for i, one in enumerate(made) if one[first] is None), None)
    what = (
        "some have an offset from UTC and some have none"
        if odd is None
        else (f"{table} line {rows[odd][0]} has {rows[odd][1]['time']!r} and line {rows[0][0]} {rows[0][1]['time']!r}")
    )
    raise DataError(f"Every time must be a number, or every one a date and time of ISO 8601; {what}. Write all alike.")


def _number(text: str) -> Decimal | None:
    """Exact, since clocks count nanoseconds."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _check_once(table: Path, rows: Sequence[Row], files: Sequence[str]) -> None:
    seen: dict[tuple[str, str], int] = {}
    folder = cache(os.path.realpath)  # which holds many images, and may be reached by a link
    for (line, row), file in zip(rows, files, strict=True):
        where, name = os.path.split(os.path.realpath(file) if Path(file).is_symlink() else file)
        real = folder(where), name
        if real in seen:
            raise DataError(
                f"An image has one row; {table} has {row['path']} in lines {seen[real]} and {line}. Remove one."
            )
        seen[real] = line


def _about(table: Path, rows: Sequence[Row], files: Sequence[str]) -> list[tuple[int, int]]:
    """Size and time of change of each file."""
    found, missing = list[tuple[int, int]](), list[str]()
    for (line, row), file in zip(rows, files, strict=True):
        try:
            about = Path(file).stat()
            found.append((about.st_size, about.st_mtime_ns))
        except (OSError, ValueError) as error:
            missing.append(f"  line {line}: {row['path']}: {getattr(error, 'strerror', None) or error}")
    if missing:
        more = [f"  and {len(missing) - _NAMED} more"] if len(missing) > _NAMED else []
        head = f"Every row must name a file, seen from the table's folder; of {table} {len(missing)} do not:"
        raise DataError("\n".join([head, *missing[:_NAMED], *more, "Copy the files there, or mend the paths."]))
    return found
