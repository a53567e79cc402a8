"""What a figure draws, as plain values: both the page and the files are drawn from these. Knows no drawing library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "MOST_NAMES",
    "Absent",
    "Axis",
    "Bars",
    "Chart",
    "Figure",
    "Heat",
    "Level",
    "Picture",
    "Plot",
    "Row",
    "Series",
]

Row = dict[str, Any]

MOST_NAMES = 20
"""A legend of more would take the room of the figure: the pointer says which is which, and the table has them all."""


@dataclass(frozen=True)
class Axis:
    """One axis: `percent` where values are shares, 0 to 1; `ticks` say what stands where, if not the numbers."""

    title: str = ""
    log: bool = False
    percent: bool = False
    ticks: Mapping[float, str] = field(default_factory=dict)
    span: tuple[float, float] | None = None
    """What is shown first, where that is not all."""
    words: Sequence[str] = ()
    """The places of an axis of words, the first at the bottom."""


@dataclass(frozen=True)
class Series:
    """Points that belong together, each with what hovering over it says.

    `look`: the number of its colour and shape. `error`: half of each interval. `faint`: single seeds behind their mean.
    `steps`: a line that keeps its height up to the next point. `labels`: a word beside each point.
    `told`: its name is in the legend, though that has no room for all.
    """

    name: str
    x: Sequence[Any]
    y: Sequence[Any]
    hover: Sequence[str]
    look: int | None = None
    error: Sequence[float | None] = ()
    labels: Sequence[str] = ()
    told: bool = False
    line: bool = False
    steps: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Level:
    """A line across the figure at one height, with its name."""

    name: str
    at: float


@dataclass(frozen=True)
class Plot:
    """Points and lines."""

    series: Sequence[Series]
    x: Axis
    y: Axis
    levels: Sequence[Level] = ()


@dataclass(frozen=True)
class Heat:
    """Shares, 0 to 1, in rows (`y`, the first on top) and columns (`x`); None: not measured."""

    x: Sequence[str]
    y: Sequence[str]
    z: Sequence[Sequence[float | None]]
    hover: Sequence[Sequence[str]]
    x_title: str = ""
    notes: Sequence[Sequence[str]] = ()
    """A word in each cell beside its value."""


@dataclass(frozen=True)
class Bars:
    """Shares that add up: a bar each of `words` (the first on top), cut into the series, and what each cut says."""

    words: Sequence[str]
    series: Mapping[str, Sequence[float]]
    hover: Mapping[str, Sequence[str]]
    title: str


@dataclass(frozen=True)
class Picture:
    """A picture as a whole PNG file."""

    png: bytes


Chart = Plot | Heat | Bars | Picture


@dataclass(frozen=True)
class Figure:
    """A figure of the page: what it draws, the rows that this is drawn from, and what a reader should conclude."""

    name: str
    title: str
    caption: str
    alt: str
    rows: Sequence[Row]
    chart: Chart


@dataclass(frozen=True)
class Absent:
    """A figure that cannot be drawn, and why."""

    title: str
    why: str
