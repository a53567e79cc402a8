"""Energy of the radio, where the ledger has it. Knows what is reported; not how it is drawn."""

from statistics import fmean

from fed_lorac.pages.chart import Absent, Axis, Figure, Plot, Row
from fed_lorac.pages.figures.by_link import series_by_link
from fed_lorac.pages.reported import Reported, ReportedRun
from fed_lorac.pages.words import log_axis, said

__all__ = ["energy"]

_TITLE = "Energy of the radio"
_COLUMN = "energy_radio_j"


def energy(found: Reported) -> Figure | Absent:
    """Joules that a camera's radio takes in the whole run, by link: the mean over cameras."""
    rows = [
        {"arm": arm.label, "seed": run.seed, "run": run.row["run"], **its}
        for arm in found.arms
        for run in arm.runs
        for its in _by_link(run)
    ]
    if not any(row["energy_j"] for row in rows):
        return Absent(_TITLE, f"the runs' ledgers have no {_COLUMN}." if found.sending else "nothing was sent.")
    links, words = sorted({row["link"] for row in rows}), [arm.label for arm in reversed(found.arms)]
    series = series_by_link(rows, "energy_j", words, links, lambda arm, link, joules: f"{said(joules)} J")
    values = [x for one in series for x in one.x]
    chart = Plot(series, log_axis("joules, radio of one camera, the whole run", values), Axis(words=words))
    low, high = (pick((row for row in rows if row["energy_j"]), key=lambda row: row["energy_j"]) for pick in (min, max))
    caption = (
        f"A camera's radio takes from {said(low['energy_j'])} J ({low['arm']} on {low['link']}) to "
        f"{said(high['energy_j'])} J ({high['arm']} on {high['link']}) in the whole run, up and down together."
    )
    alt = f"Joules on a log axis, on {', '.join(links)}, for each of {len(words)} arms."
    return Figure("energy", _TITLE, caption, alt, rows, chart)


def _by_link(run: ReportedRun) -> list[Row]:
    """The mean over each link's cameras, of a link whose power is known."""
    spent: dict[str, dict[int, float]] = {}
    for row in run.cameras:
        if row.get(_COLUMN) is not None:
            its = spent.setdefault(row["link"], {})
            its[row["camera"]] = its.get(row["camera"], 0.0) + row[_COLUMN]
    return [{"link": name, "energy_j": fmean(its.values())} for name, its in spent.items()]
