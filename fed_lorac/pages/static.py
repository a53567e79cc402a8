"""Charts for Matplotlib: the files beside the page, and what is printed. Knows charts; not runs."""

import io
from typing import TYPE_CHECKING, Any

from fed_lorac.pages.chart import MOST_NAMES, Bars, Chart, Heat, Picture, Plot, Series
from fed_lorac.pages.palette import NEUTRAL, SHADES, colour, shape
from fed_lorac.pages.words import wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Paper
    from matplotlib.ticker import Formatter

__all__ = ["static"]

_WIDTH_IN = 7.5
_WIDTH_CHARACTERS = 85  # that the width has room for beside a colour bar, in the axes' size
_NAME_CHARACTERS = 30  # in a line of a row's name
_LEGEND_CHARACTERS = 128  # that the width has room for, in the legend's size; ten of them go to each column's marker
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "fed-lorac",  # the same chart is the same file
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}


def static(chart: Chart) -> dict[str, bytes]:
    """The chart as "png" and "svg"; a picture as "png" alone."""
    if isinstance(chart, Picture):
        return {"png": chart.png}
    import matplotlib as mpl  # noqa: PLC0415  (an extra, and half a second)
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure as Paper  # noqa: PLC0415

    with mpl.rc_context(_STYLE):
        paper = Paper(figsize=(_WIDTH_IN, _height_in(chart)), layout="constrained")
        FigureCanvasAgg(paper)
        draw: Any = {Plot: _plot, Heat: _heat, Bars: _bars}[type(chart)]
        draw(chart, paper)
        png = _file(paper, "png", dpi=200, metadata={"Software": None})
        return {"png": png, "svg": _file(paper, "svg", metadata={"Date": None, "Creator": None})}


def _file(paper: "Paper", kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    paper.savefig(file, format=kind, **how)
    return file.getvalue()


def _height_in(chart: Plot | Heat | Bars) -> float:
    if isinstance(chart, Plot):
        named = len([one for one in chart.series if one.name and not one.faint])
        return _rows_in(len(chart.y.words)) if chart.y.words else 4.2 + 0.1 * min(named, MOST_NAMES)
    return _rows_in(len(chart.y) if isinstance(chart, Heat) else len(chart.words)) + 0.3


def _rows_in(rows: int) -> float:
    return 1.0 + 0.34 * max(2, rows)


def _plot(chart: Plot, paper: "Paper") -> None:
    axes = paper.subplots()
    if chart.y.words:
        axes.set_yticks(range(len(chart.y.words)), [wrapped(word, _NAME_CHARACTERS) for word in chart.y.words])
        axes.set_ylim(-0.6, len(chart.y.words) - 0.4)
    places = {word: place for place, word in enumerate(chart.y.words)}
    crowded = len({one.name for one in chart.series}) > MOST_NAMES
    for one in chart.series:
        _series(one, axes, [places.get(y, y) for y in one.y], in_legend=one.steps or one.told or not crowded)
    for level, dash in zip(chart.levels, ("--", "-.", (0, (1, 2))), strict=False):
        axes.axhline(level.at, color=NEUTRAL, linestyle=dash, linewidth=1, zorder=1, label=level.name)
    for name, axis in (("x", chart.x), ("y", chart.y)):
        own = getattr(axes, f"{name}axis")
        getattr(axes, f"set_{name}label")(axis.title)
        if axis.log:
            getattr(axes, f"set_{name}scale")("log")
        if axis.ticks:
            _set_ticks(axes, name, list(axis.ticks.items()))
        if axis.span:
            getattr(axes, f"set_{name}lim")(*axis.span)
        if axis.percent:
            own.set_major_formatter(_percents())
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        columns = min(3, max(1, _LEGEND_CHARACTERS // (max(map(len, labels)) + 10)))
        paper.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=8)


def _set_ticks(axes: "Axes", name: str, ticks: list[tuple[float, str]]) -> None:
    low, high = getattr(axes, f"get_{name}lim")()
    inside = [(at, text) for at, text in ticks if low <= at <= high]
    getattr(axes, f"set_{name}ticks")([at for at, _ in inside], [text for _, text in inside], minor=False)
    getattr(axes, f"set_{name}ticks")([], minor=True)


def _series(one: Series, axes: "Axes", y: list[Any], *, in_legend: bool) -> None:
    axes.errorbar(
        one.x,
        y,
        yerr=[half or 0 for half in one.error] or None,
        label=one.name if in_legend and not one.faint else "",
        color=colour(one.look),
        marker="" if one.steps else shape(one.look, 1),
        markersize=3 if one.faint else 6,
        alpha=0.4 if one.faint else 1,
        linestyle=":" if one.steps else "-" if one.line else "",
        drawstyle="steps-post" if one.steps else "default",
        capsize=2,
        zorder=1 if one.steps else 3,
    )
    for x, height, label in zip(one.x, y, one.labels, strict=False):
        axes.annotate(label, (x, height), xytext=(4, 5), textcoords="offset points", fontsize=8)


def _heat(chart: Heat, paper: "Paper") -> None:
    import numpy as np  # noqa: PLC0415

    axes = paper.subplots()
    z = np.array([[np.nan if value is None else value for value in row] for row in chart.z], dtype=float)
    image = axes.imshow(z, aspect="auto", cmap=SHADES)
    axes.grid(visible=False)
    turned = 90 if len(chart.x) > 12 else 30 if max(map(len, chart.x)) > _characters_a_column(chart) else 0
    axes.set_xticks(range(len(chart.x)), chart.x, rotation=turned, ha="right" if turned == 30 else "center")
    axes.set_yticks(range(len(chart.y)), [wrapped(name, _NAME_CHARACTERS) for name in chart.y])
    axes.set_xlabel(chart.x_title)
    middle = float(np.nanmin(z) + np.nanmax(z)) / 2
    for row, values in enumerate(z if len(chart.x) <= 24 else []):
        for column, value in enumerate(values):
            if not np.isnan(value):
                ink = "black" if value > middle else "white"
                note = f"\n{chart.notes[row][column]}" if chart.notes and chart.notes[row][column] else ""
                axes.text(column, row, f"{100 * value:.1f}{note}", ha="center", va="center", color=ink, fontsize=7)
    paper.colorbar(image, ax=axes, format=_percents(), shrink=0.9)


def _characters_a_column(chart: Heat) -> float:
    """How long a column's name may be without touching its neighbour's, beside the names of rows."""
    of_rows = min(_NAME_CHARACTERS, max(map(len, chart.y)))
    return (_WIDTH_CHARACTERS - of_rows) / len(chart.x)


def _bars(chart: Bars, paper: "Paper") -> None:
    axes = paper.subplots()
    left = [0.0] * len(chart.words)
    for number, (name, values) in enumerate(chart.series.items()):
        axes.barh(range(len(chart.words)), values, left=left, color=colour(number), label=name)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.set_yticks(range(len(chart.words)), [wrapped(word, _NAME_CHARACTERS) for word in chart.words])
    axes.invert_yaxis()
    axes.set_xlabel(chart.title)
    axes.xaxis.set_major_formatter(_percents())
    paper.legend(loc="outside upper left", ncols=3, fontsize=8)


def _percents() -> "Formatter":
    from matplotlib.ticker import PercentFormatter  # noqa: PLC0415

    return PercentFormatter(1.0)
