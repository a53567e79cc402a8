"""How far what cameras fold is from the exact mean. Knows what is reported; not how it is drawn."""

from fed_lorac.pages.chart import Absent, Figure, Plot, Series
from fed_lorac.pages.reported import Reported
from fed_lorac.pages.words import listed, log_axis, mean_and_half, power_said, round_axis, said

__all__ = ["error"]

_TITLE = "Aggregation error"
_ROUNDING = 1e-5


def error(found: Reported) -> Figure | Absent:
    """Each arm's aggregation error, round by round."""
    rows = [
        {
            "arm": arm.label,
            "seed": run.seed,
            "run": run.row["run"],
            "round": row["round"],
            "aggregation_error": row["aggregation_error"],
        }
        for arm in found.arms
        for run in arm.runs
        for row in run.rounds
        if row["aggregation_error"]
    ]
    if not rows:
        return Absent(_TITLE, "no arm averages with an error.")
    series, worst = [], dict[str, float]()
    for arm in found.arms:
        by_round: dict[int, list[float]] = {}
        for row in rows:
            if row["arm"] == arm.label:
                by_round.setdefault(row["round"], []).append(row["aggregation_error"])
        means = {number: sum(values) / len(values) for number, values in sorted(by_round.items())}
        if means:
            hover = [f"{arm.label}, round {number}\n{value:.2g}" for number, value in means.items()]
            series.append(Series(arm.label, list(means), list(means.values()), hover, arm.look, line=True))
            worst[arm.label] = mean_and_half(means.values())[0] or 0.0
    y = log_axis(
        "distance from the exact mean, divided by its norm", [row["aggregation_error"] for row in rows], power_said
    )
    label, value = max(worst.items(), key=lambda one: one[1])
    exact = [name for name, its in worst.items() if its < _ROUNDING]
    if value < _ROUNDING:
        caption = "The update of every arm is the exact mean of the deltas, up to rounding."
    else:
        also = f" Exact up to rounding: {listed(exact)}." if exact else ""
        caption = (
            f"On average the update of {label} is {said(100 * value)} % away from the exact mean of the deltas.{also} "
            "A distance of 1 is as large as the norm of the mean. What a strategy leaves out of a round and sends in "
            "a later one, as svd does, counts as distance in both."
        )
    x = round_axis(sorted({row["round"] for row in rows}))
    alt = f"Relative aggregation error on a log axis over rounds, {len(series)} curves."
    return Figure("error", _TITLE, caption, alt, rows, Plot(series, x, y))
