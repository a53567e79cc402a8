"""What a study tuned, and what it chose. Knows what is reported; not how it is drawn."""

from fed_lorac.pages.chart import Absent, Axis, Figure, Plot, Series
from fed_lorac.pages.reported import Reported
from fed_lorac.pages.words import log_axis, percent

__all__ = ["tuning"]

_TITLE = "What was tuned"


def tuning(found: Reported) -> Figure | Absent:
    """Each arm's accuracy by the value that was tried, on the images that were set apart for it."""
    if not found.tuning:
        return Absent(_TITLE, "the settings of these runs were not tuned.")
    rows = [row for its in found.tuning for row in its.rows if row["accuracy"] is not None]
    if not rows:
        return Absent(_TITLE, "no tuning run was measured.")
    settings = dict.fromkeys(key for its in found.tuning for key in its.settings)
    tried = [key for key in settings if len({row.get(key) for row in rows}) > 1]
    if len(tried) != 1 or not all(isinstance(row.get(tried[0]), int | float) for row in rows):
        return Absent(_TITLE, f"a figure shows one number that was tuned; tuning.csv has {', '.join(tried) or 'none'}.")
    (key,) = tried
    series, chosen = [], []
    for look, arm in enumerate(dict.fromkeys(row["arm"] for row in rows)):
        its = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row[key])
        hover = [f"{arm}\n{key} = {row[key]:g}: {percent(row['accuracy'])} after {row['rounds']} rounds" for row in its]
        series.append(Series(arm, [row[key] for row in its], [row["accuracy"] for row in its], hover, look, line=True))
        best = max(its, key=lambda row: (row["rounds"], row["accuracy"]))  # a search stops the worse ones early
        edge = best[key] in (its[0][key], its[-1][key]) and len(its) > 1
        chosen.append(f"{arm} {best[key]:g}{' (at the edge of what was tried)' if edge else ''}")
    values = [row[key] for row in rows]
    x = log_axis(key, values) if min(values) > 0 else Axis(key)
    caption = (
        f"The most accurate {key} of each arm: {', '.join(chosen)}. Each arm had equally many values to try, one seed."
    )
    alt = f"Accuracy over {key}, {len(series)} curves, one for each arm."
    columns = ("arm", "seed", key, "run", "accuracy")
    kept = [{name: row[name] for name in columns} for row in rows]
    return Figure("tuning", _TITLE, caption, alt, kept, Plot(series, x, Axis("accuracy in tuning", percent=True)))
