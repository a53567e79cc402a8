"""A number by arm, a series a link. Knows rows of a figure; not what the number is."""

from collections.abc import Callable, Iterable, Sequence

from fed_lorac.pages.chart import Row, Series
from fed_lorac.pages.words import mean_and_half

__all__ = ["mean_of", "series_by_link"]


def mean_of(rows: Iterable[Row], column: str, arm: str, link: str) -> float | None:
    """A column's mean over an arm's runs on a link; None: not known."""
    return mean_and_half(row[column] for row in rows if (row["arm"], row["link"]) == (arm, link))[0]


def series_by_link(
    rows: Sequence[Row], column: str, arms: Sequence[str], links: Sequence[str], said: Callable[[str, str, float], str]
) -> list[Series]:
    """A series for each link: the means of a column, arm by arm, but for those that are 0 or not known. `said`: what
    is told of an arm, a link and the mean, besides their names."""
    series = []
    for look, link in enumerate(links):
        means = [(mean_of(rows, column, arm, link), arm) for arm in arms]
        its = [(value, arm) for value, arm in means if value]
        hover = [f"{arm}\n{link}: {said(arm, link, value)}" for value, arm in its]
        series.append(Series(link, [value for value, _ in its], [arm for _, arm in its], hover, look))
    return series
