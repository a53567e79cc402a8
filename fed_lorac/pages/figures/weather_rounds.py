"""Accuracy of each camera as the weather changes. Knows what is reported; not how it is drawn."""

from fed_lorac.pages.chart import Absent, Figure, Heat
from fed_lorac.pages.figures.frontier import points
from fed_lorac.pages.figures.of_cameras import NOT_RECORDED, camera_rows
from fed_lorac.pages.reported import Reported
from fed_lorac.pages.words import percent

__all__ = ["weather_rounds"]

_TITLE = "Each camera as the weather changes"


def weather_rounds(found: Reported) -> Figure | Absent:
    """The most accurate arm's first seed: each camera's weather and accuracy, round by round."""
    best = max(points(found), key=lambda point: point.accuracy, default=None)
    if best is None or best.arm.runs[0].summary.get("schedule", "constant") == "constant":
        return Absent(_TITLE, "the weather of these runs does not change.")
    first = best.arm.runs[0]
    rows = [row for row in camera_rows(best.arm) if row["seed"] == first.seed]
    if not rows:
        return Absent(_TITLE, NOT_RECORDED)
    cells = {(row["camera"], row["round"]): row for row in rows}
    cameras, rounds = sorted({camera for camera, _ in cells}), sorted({number for _, number in cells})
    got = [[cells.get((camera, number)) for number in rounds] for camera in cameras]
    weather = [
        ["" if row is None else f"{row['corruption']} {row['severity'] or ''}".strip() for row in line] for line in got
    ]
    z = [[None if row is None else row["accuracy"] for row in line] for line in got]
    hover = [
        [
            f"camera {camera}, round {number}\n{said}: {percent(value)}"
            for number, said, value in zip(rounds, words, values, strict=True)
        ]
        for camera, words, values in zip(cameras, weather, z, strict=True)
    ]
    by_severity: dict[int, list[float]] = {}
    for row in rows:
        by_severity.setdefault(row["severity"], []).append(row["accuracy"])
    means = [f"{percent(sum(v) / len(v))} at severity {severity}" for severity, v in sorted(by_severity.items())]
    notes = [
        [said.replace("_", " ") for said in words]
        if len(rounds) <= 12
        else ["" if row is None else str(row["severity"]) for row in line]  # a weather has no room
        for line, words in zip(got, weather, strict=True)
    ]
    chart = Heat([str(number) for number in rounds], [f"camera {k}" for k in cameras], z, hover, "round", notes)
    alt = f"Heat map of accuracy, {len(cameras)} cameras by {len(rounds)} rounds, with the weather in each cell."
    caption = (
        f"{best.arm.label}, the most accurate arm, seed {first.seed}. Over cameras and rounds: {', '.join(means)}."
    )
    return Figure("weather-rounds", _TITLE, caption, alt, rows, chart)
