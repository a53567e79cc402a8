"""Charts for Plotly, as the plain values that its JavaScript draws. Knows charts; not runs, and not Plotly's Python."""

from html import escape
from typing import Any

from fed_lorac.pages.chart import MOST_NAMES, Axis, Bars, Heat, Level, Plot, Series
from fed_lorac.pages.palette import NEUTRAL, SHADES, colour, shape
from fed_lorac.pages.words import wrapped

__all__ = ["interactive"]

Values = dict[str, Any]

_GRID = "rgba(128, 128, 128, 0.25)"
_DASHES = ("dash", "longdashdot", "dot")


def interactive(chart: Plot | Heat | Bars) -> Values:
    """`data` and `layout` as `Plotly.newPlot` takes them."""
    draw: Any = {Plot: _plot, Heat: _heat, Bars: _bars}[type(chart)]
    data, layout = draw(chart)
    shared = {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "margin": {"l": 8, "r": 16, "t": 8, "b": 8},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "itemsizing": "constant",
            "itemwidth": 40,
        },
    }
    return {"data": data, "layout": {**shared, **layout}}


def _plot(chart: Plot) -> tuple[list[Values], Values]:
    named = [one for one in chart.series if one.name and not one.faint]
    layout = {
        "xaxis": _axis(chart.x),
        "yaxis": _axis(chart.y),
        "shapes": [_line(level, _DASHES[place % len(_DASHES)]) for place, level in enumerate(chart.levels)],
        "showlegend": len(named) + len(chart.levels) > 1,
        "height": _height(len(chart.y.words)) if chart.y.words else 440 + 11 * min(len(named), MOST_NAMES),
    }
    crowded = len(named) > MOST_NAMES
    return [_series(one, in_legend=one.steps or one.told or not crowded) for one in chart.series], layout


def _height(words: int) -> int:
    return 110 + 36 * max(2, words)


def _series(one: Series, *, in_legend: bool) -> Values:
    lines = one.line or one.steps
    found: Values = {
        "type": "scatter",
        "name": _text(one.name),
        "legendgroup": _text(one.name),
        "showlegend": bool(one.name) and not one.faint and in_legend,
        "x": list(one.x),
        "y": [_word(y) if isinstance(y, str) else y for y in one.y],
        "mode": "+".join(["lines"] * lines + ["markers"] * (not one.steps) + ["text"] * bool(one.labels)),
        "hovertext": list(map(_text, one.hover)),
        "hoverinfo": "text" if one.hover else "skip",
        "marker": {
            "color": colour(one.look),
            "symbol": shape(one.look, 0),
            "size": 5 if one.faint else 10,
            "line": {"color": colour(one.look), "width": 2 if one.look is None else 0},  # a bar is nothing but its line
        },
        "opacity": 0.45 if one.faint else 1,
    }
    if lines:
        dash = {"dash": "dot", "shape": "hv"} if one.steps else {}
        found["line"] = {"color": colour(one.look), "width": 2, **dash}
    if one.labels:
        found |= {"text": list(map(_text, one.labels)), "textposition": "top right"}
    if any(half is not None for half in one.error):
        found["error_y"] = {"type": "data", "array": [half or 0 for half in one.error], "thickness": 1.5, "width": 4}
    return found


def _axis(axis: Axis) -> Values:
    found: Values = {
        "title": {"text": _text(axis.title)},
        "gridcolor": _GRID,
        "zeroline": False,
        "automargin": True,
        "fixedrange": bool(axis.words),
    }
    if axis.percent:
        found["tickformat"] = ".1~%"
    if axis.log:
        found["type"] = "log"
    if axis.ticks:
        said = list(map(_text, axis.ticks.values()))
        found |= {"tickvals": list(axis.ticks), "ticktext": said, "tickangle": 0}
    if axis.span:
        found["range"] = list(axis.span)
    if axis.words:
        words = list(map(_word, axis.words))
        found |= {"type": "category", "categoryorder": "array", "categoryarray": words}
        found |= {"range": [-0.6, len(words) - 0.4]}
    return found


def _line(level: Level, dash: str) -> Values:
    place = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": level.at, "y1": level.at, "layer": "below"}
    line = {"color": NEUTRAL, "width": 1.5, "dash": dash}
    return {**place, "line": line, "name": _text(level.name), "showlegend": True}


def _heat(chart: Heat) -> tuple[list[Values], Values]:
    cells = [
        [_cell(value, note) for value, note in zip(values, notes, strict=True)]
        for values, notes in zip(chart.z, chart.notes or [[""] * len(chart.x)] * len(chart.y), strict=True)
    ]
    trace = {
        "type": "heatmap",
        "x": list(map(_text, chart.x)),
        "y": list(map(_word, chart.y)),
        "z": [list(values) for values in chart.z],
        "text": cells,
        "texttemplate": "%{text}",
        "hovertext": [list(map(_text, row)) for row in chart.hover],
        "hoverinfo": "text",
        "colorscale": SHADES.capitalize(),
        "colorbar": {"tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
        "xgap": 1,
        "ygap": 1,
    }
    axes: Values = {
        "xaxis": {**_axis(Axis(chart.x_title)), "type": "category", "showgrid": False},
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True, "showgrid": False},
    }
    return [trace], {**axes, "height": _height(len(chart.y)) + 30}


def _cell(value: float | None, note: str) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f}" + (f"<br>{_text(note)}" if note else "")


def _bars(chart: Bars) -> tuple[list[Values], Values]:
    words = list(map(_word, chart.words))
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": _text(name),
            "x": list(values),
            "y": words,
            "marker": {"color": colour(number)},
            "hovertext": list(map(_text, chart.hover[name])),
            "hoverinfo": "text",
        }
        for number, (name, values) in enumerate(chart.series.items())
    ]
    axes = {
        "xaxis": _axis(Axis(chart.title, percent=True)),
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True},
    }
    return traces, {**axes, "barmode": "stack", "showlegend": True, "height": _height(len(words)) + 40}


def _word(text: str) -> str:
    """A long name beside an axis."""
    return _text(wrapped(text))


def _text(text: str) -> str:
    """Text as Plotly takes it: its tags are none, its lines are."""
    return escape(text, quote=False).replace("\n", "<br>")
