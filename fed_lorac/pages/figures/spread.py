"""How accuracy is spread over cameras, and which camera is worst. Knows what is reported; not how it is drawn."""

from statistics import median

from fed_lorac.pages.chart import Absent, Axis, Figure, Plot, Row, Series
from fed_lorac.pages.figures.of_cameras import NOT_RECORDED, last_measured, mean_by_camera
from fed_lorac.pages.reported import Arm, Reported
from fed_lorac.pages.words import percent

__all__ = ["spread"]

_TITLE = "The spread over cameras, and the worst"


def spread(found: Reported) -> Figure | Absent:
    """Each arm's cameras as points on a line, the worst of them named."""
    rows = last_measured(found)
    arms = [arm for arm in found.arms if any(row["arm"] == arm.label for row in rows)]
    if not arms:
        return Absent(_TITLE, NOT_RECORDED)
    series, worst = list[Series](), dict[str, tuple[str, float]]()
    for arm in arms:
        its = [row for row in rows if row["arm"] == arm.label]
        means = mean_by_camera(its)
        lowest = min(means, key=lambda camera: means[camera])
        worst[arm.label] = (_name(its, lowest), means[lowest])
        series += _series(arm, its, means, lowest)
    words = [arm.label for arm in reversed(arms)]
    chart = Plot(series, Axis("accuracy of a camera, mean over seeds", percent=True), Axis(words=words))
    label, (camera, accuracy) = max(worst.items(), key=lambda one: one[1][1])
    most = max(set(worst.values()), key=lambda one: sum(other[0] == one[0] for other in worst.values()))[0]
    count = sum(camera == most for camera, _ in worst.values())
    whose = f"In {count} of {len(arms)} arms the worst camera is {most}. {label} serves its worst camera best"
    said = whose if len(arms) > 1 else "The worst camera"
    caption = f"{said}: {percent(accuracy)} ({camera}). The large mark is the worst camera, the grey bar the median."
    alt = f"The cameras' accuracies as points, a line for each of {len(arms)} arms; the worst camera is named."
    return Figure("spread", _TITLE, caption, alt, rows, chart)


def _name(rows: list[Row], camera: int) -> str:
    row = next(row for row in rows if row["camera"] == camera)
    weather = f"{row['corruption'].replace('_', ' ')} {row['severity'] or ''}".strip()
    return f"{row['name'] or f'camera {camera}'}, {weather}"


def _series(arm: Arm, rows: list[Row], means: dict[int, float], lowest: int) -> list[Series]:
    hover = [f"{arm.label}\n{_name(rows, camera)}: {percent(value)}" for camera, value in means.items()]
    middle = median(means.values())
    return [
        Series("", list(means.values()), [arm.label] * len(means), hover, arm.look, faint=True),
        Series("", [middle], [arm.label], [f"{arm.label}\nmedian camera: {percent(middle)}"]),
        Series(
            "",
            [means[lowest]],
            [arm.label],
            [f"{arm.label}\nworst: {_name(rows, lowest)}: {percent(means[lowest])}"],
            arm.look,
            labels=[_name(rows, lowest)],
        ),
    ]
