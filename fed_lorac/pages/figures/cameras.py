"""Accuracy of each camera. Knows what is reported; not how it is drawn."""

from statistics import fmean, pstdev

from fed_lorac.pages.chart import Absent, Figure, Heat, Row
from fed_lorac.pages.figures.of_cameras import NOT_RECORDED, last_measured
from fed_lorac.pages.reported import Reported
from fed_lorac.pages.words import mean_and_half, percent

__all__ = ["cameras"]

_TITLE = "Accuracy of each camera"
_MOST = 40  # columns that a page can show


def cameras(found: Reported) -> Figure | Absent:
    """Each arm's accuracy by camera, those of one weather side by side; of many cameras, by weather and severity."""
    rows = last_measured(found)
    if not rows:
        return Absent(_TITLE, NOT_RECORDED)
    each = len({row["camera"] for row in rows}) <= _MOST
    ordered = sorted(rows, key=lambda row: (row["corruption"], row["severity"], row["camera"]))
    columns = list(dict.fromkeys(_column(row, each=each) for row in ordered))
    names = [arm.label for arm in found.arms if any(row["arm"] == arm.label for row in rows)]
    cells: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        cells.setdefault((row["arm"], _column(row, each=each)), []).append(row["accuracy"])
    means = {key: mean_and_half(values) for key, values in cells.items()}
    none = (None, None)
    z = [[means.get((name, column), none)[0] for column in columns] for name in names]
    hover = [
        [
            f"{name}\n{column}: {percent(means.get((name, column), none)[0])}"
            f"\nvalues: {len(cells.get((name, column), []))}"
            for column in columns
        ]
        for name in names
    ]
    what = "camera" if each else "weather and severity"
    alt = (
        f"Heat map of accuracy in the last measured round: {len(names)} arms by {len(columns)} columns, each a {what}."
    )
    return Figure("cameras", _TITLE, _caption(rows), alt, rows, Heat(columns, names, z, hover, what))


def _column(row: Row, *, each: bool) -> str:
    where = f"{row['corruption'].replace('_', ' ')} {row['severity'] or ''}".strip()
    return f"{row['name'] or row['camera']}: {where}" if each else where


def _caption(rows: list[Row]) -> str:
    by_camera: dict[int, list[float]] = {}
    by_arm: dict[str, list[float]] = {}
    for row in rows:
        by_camera.setdefault(row["camera"], []).append(row["accuracy"])
        by_arm.setdefault(row["arm"], []).append(row["accuracy"])
    between = pstdev(fmean(values) for values in by_camera.values())
    arms = pstdev(fmean(values) for values in by_arm.values())
    more = "cameras differ more than arms do" if between > arms else "arms differ more than cameras do"
    said = "In per cent, after the last measured round, mean over seeds."
    if len(by_arm) < 2:
        return f"{said} Cameras' means spread by {100 * between:.1f} points (standard deviation)."
    return (
        f"{said} Here {more}: cameras' means spread by "
        f"{100 * between:.1f} points, arms' means by {100 * arms:.1f} (standard deviations)."
    )
