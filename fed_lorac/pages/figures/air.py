"""Air time and days on each link. Knows what is reported; not how it is drawn."""

from dataclasses import replace

from fed_lorac.pages.chart import Absent, Axis, Figure, Plot, Row
from fed_lorac.pages.figures.by_link import mean_of, series_by_link
from fed_lorac.pages.reported import Reported
from fed_lorac.pages.words import listed, time_axis, time_said
from fed_lorac.reporting.intervals import known

__all__ = ["air"]

_TITLE = "Time on the radio"


def air(found: Reported) -> Figure | Absent:
    """How long a camera's link is taken, on each link of the fleet: the time that it sends, and with the silence that a
    duty cycle demands; and full fine-tuning's."""
    rows = _rows(found)
    if not known(row["days"] for row in rows if row["days"]):
        return Absent(_TITLE, "nothing was sent.")
    links, words = list(dict.fromkeys(row["link"] for row in rows)), [arm.label for arm in reversed(found.sending)]

    def said(arm: str, link: str, days: float) -> str:
        sending = mean_of(rows, "days_sending", arm, link)
        return f"{time_said(days)}\non the air: {'not known' if sending is None else time_said(sending)}"

    with_silence = series_by_link(rows, "days", words, links, said)
    silent = [link for link in links if any(row["link"] == link and _is_silent(row) for row in rows)]
    sends = series_by_link(rows, "days_sending", words, links, lambda arm, link, days: f"sends for {time_said(days)}")
    series = [*(replace(one, name="", faint=True) for one in sends if one.name in silent), *with_silence]
    values = [x for one in series for x in one.x]
    title = "time that a camera's link is busy in the whole run"
    chart = Plot(series, time_axis(f"{title}, silence included" if silent else title, values), Axis(words=words))
    alt = f"Time that a link is busy, on a log axis, on {', '.join(links)}, for each of {len(words)} arms."
    return Figure("air", _TITLE, _caption(rows, links, silent), alt, rows, chart)


def _is_silent(row: Row) -> bool:
    """Whether a duty cycle makes a camera wait after it has sent."""
    return row["days_sending"] is not None and row["days"] > 1.001 * row["days_sending"]


def _rows(found: Reported) -> list[Row]:
    return [
        {
            "arm": arm.label,
            "seed": run.seed,
            "run": run.row["run"],
            "link": name,
            "air_time_s": air_time_s,
            "days_sending": None if air_time_s is None else air_time_s / 86400,
            "days": days["adapter"],
            "days_full_fp32": days["full_fp32"],
        }
        for arm in found.sending
        for run in arm.runs
        for name, days in run.summary["days"].items()
        for air_time_s in [run.summary["air_time_s"].get(name, {}).get("adapter")]
    ]


def _caption(rows: list[Row], links: list[str], silent: list[str]) -> str:
    parts = []
    for name in links:
        its = [row for row in rows if row["link"] == name and row["days"]]
        if not its:
            continue
        low = min(its, key=lambda row: row["days"])
        full = low["days_full_fp32"]  # of the same network and fleet
        against = "" if full is None else f", full fine-tuning in fp32 {time_said(full)}"
        parts.append(
            f"On {name} a camera's uplink of the whole run takes {time_said(low['days'])} ({low['arm']}){against}."
        )
    pale = f"This includes the silence that a duty cycle demands; pale marks are the sending alone ({listed(silent)})."
    return " ".join([*parts, *[pale] * bool(silent), "Times are means over cameras."])
