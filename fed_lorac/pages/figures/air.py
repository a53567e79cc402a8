"""Air time and days on each link. Knows what is reported; not how it is drawn."""

from fed_lorac.pages.chart import Absent, Axis, Figure, Plot, Row
from fed_lorac.pages.figures.by_link import mean_of, series_by_link
from fed_lorac.pages.reported import Reported
from fed_lorac.pages.words import known, time_axis, time_said

__all__ = ["air"]

_TITLE = "Time on the radio"


def air(found: Reported) -> Figure | Absent:
    """How long a camera sends, on each link of the fleet, the silence of its duty cycle included; and full
    fine-tuning's."""
    rows = _rows(found)
    if not known(row["days"] for row in rows if row["days"]):
        return Absent(_TITLE, "nothing was sent.")
    links, words = list(dict.fromkeys(row["link"] for row in rows)), [arm.label for arm in reversed(found.sending)]

    def said(arm: str, link: str, days: float) -> str:
        return f"{time_said(days)}\non the air: {_air(mean_of(rows, 'air_time_s', arm, link))}"

    series = series_by_link(rows, "days", words, links, said)
    values = [x for one in series for x in one.x]
    chart = Plot(series, time_axis("time that a camera sends in the whole run", values), Axis(words=words))
    alt = f"Days of sending on a log axis, on {', '.join(links)}, for each of {len(words)} arms."
    return Figure("air", _TITLE, _caption(rows, links), alt, rows, chart)


def _air(seconds: float | None) -> str:
    return "not known" if seconds is None else time_said(seconds / 86400)


def _rows(found: Reported) -> list[Row]:
    return [
        {
            "arm": arm.label,
            "seed": run.seed,
            "run": run.row["run"],
            "link": name,
            "air_time_s": run.summary["air_time_s"].get(name, {}).get("adapter"),
            "days": days["adapter"],
            "days_full_fp32": days["full_fp32"],
        }
        for arm in found.sending
        for run in arm.runs
        for name, days in run.summary["days"].items()
    ]


def _caption(rows: list[Row], links: list[str]) -> str:
    parts = []
    for name in links:
        its = [row for row in rows if row["link"] == name and row["days"]]
        if not its:
            continue
        low = min(its, key=lambda row: row["days"])
        full = known(row["days_full_fp32"] for row in its)
        against = f", full fine-tuning in fp32 {time_said(max(full))}" if full else ""
        parts.append(
            f"On {name} a camera's uplink of the whole run takes {time_said(low['days'])} ({low['arm']}){against}."
        )
    return " ".join([*parts, "The silence that a duty cycle demands is in it; only a camera's mean uplink counts."])
