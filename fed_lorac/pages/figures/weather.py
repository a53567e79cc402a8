"""Accuracy by weather. Knows what is reported; not how it is drawn."""

from collections.abc import Mapping

from fed_lorac.pages.chart import Absent, Figure, Heat, Row
from fed_lorac.pages.reported import Reported, ReportedRun
from fed_lorac.pages.words import mean_and_half, percent

__all__ = ["weather"]

_TITLE = "Accuracy in each weather"
CLEAR = "all in clear air"


def weather(found: Reported) -> Figure | Absent:
    """Each arm's accuracy by corruption and in clear air, after source and zero-byte."""
    rows = _rows(found)
    columns = list(dict.fromkeys(row["weather"] for row in rows))
    columns = [*(name for name in columns if name != CLEAR), CLEAR]
    names = list(dict.fromkeys(row["arm"] for row in rows))
    means = {
        (name, column): mean_and_half(row["accuracy"] for row in rows if (row["arm"], row["weather"]) == (name, column))
        for name in names
        for column in columns
    }
    z = [[means[name, column][0] for column in columns] for name in names]
    hover = [[f"{name}\n{column}: {percent(*means[name, column])}" for column in columns] for name in names]
    alt = f"Heat map of accuracy: {len(names)} rows, each an arm, by {', '.join(columns)}."
    chart = Heat([column.replace("_", " ") for column in columns], names, z, hover)
    return Figure("weather", _TITLE, _caption(found, z, names, columns), alt, rows, chart)


def _rows(found: Reported) -> list[Row]:
    first = {run.seed: run for run in reversed(found.runs)}
    base = [
        row
        for arm, label in (("source", "source: the base as it comes"), ("zero_byte", "zero-byte: nothing sent"))
        for run in first.values()
        for row in _of(run, arm, label)
        if found.one_fleet and row["accuracy"] is not None
    ]
    return base + [row for arm in found.arms for run in arm.runs for row in _of(run, "adapted", arm.label)]


def _of(run: ReportedRun, arm: str, label: str) -> list[Row]:
    by_weather: Mapping[str, Mapping[str, float | None]] = run.summary["per_corruption"]
    each = {**{name: its[arm] for name, its in by_weather.items()}, CLEAR: run.summary["clean_accuracy"][arm]}
    return [{"arm": label, "seed": run.seed, "weather": name, "accuracy": value} for name, value in each.items()]


def _caption(found: Reported, z: list[list[float | None]], names: list[str], columns: list[str]) -> str:
    own = len(names) - len(found.arms)
    said = []
    for place, column in enumerate(columns):
        its = [(row[place], name) for row, name in zip(z[own:], names[own:], strict=True) if row[place] is not None]
        if its:
            best, name = max(its, key=lambda one: one[0] or 0)
            said.append(f"{column.replace('_', ' ')} {percent(best)}" + (f" ({name})" if len(found.arms) > 1 else ""))
    last = " Weather changes here, and this is the last round." if found.changing else ""
    whose = "The most accurate arm in each" if len(found.arms) > 1 else found.arms[0].label
    return f"{whose}: {'; '.join(said)}.{last} In per cent, mean over cameras and seeds."
