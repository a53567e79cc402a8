"""Laws of Matplotlib's charts: what is written on them can be read."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_lorac.pages import static
from fed_lorac.pages.chart import Heat

mpl = pytest.importorskip("matplotlib", reason="needs the extra report")
FigureCanvasAgg = pytest.importorskip("matplotlib.backends.backend_agg").FigureCanvasAgg
Paper: Any = pytest.importorskip("matplotlib.figure").Figure

WEATHERS = ["fog", "snow", "gaussian noise", "contrast", "frost", "impulse noise", "all in clear air"]
NAMES = st.lists(st.text("abcdefgh ", min_size=1, max_size=16).map(str.strip), min_size=1, max_size=12)


def drawn(columns: list[str], rows: list[str]) -> Any:
    """A heat map on its paper, laid out."""
    z = [[0.5 + 0.01 * (row + column) for column in range(len(columns))] for row in range(len(rows))]
    chart = Heat(columns, rows, z, [["" for _ in columns] for _ in rows])
    paper = Paper(figsize=(static._WIDTH_IN, static._height_in(chart)), layout="constrained")
    FigureCanvasAgg(paper)
    with mpl.rc_context(static._STYLE):
        static._heat(chart, paper)
        paper.canvas.draw()
    return paper


def overlaps(paper: Any) -> list[tuple[str, str]]:
    """Neighbours among the names of columns that stand upright and touch."""
    labels = [one for one in paper.axes[0].get_xticklabels() if one.get_text() and not one.get_rotation()]
    boxes = [one.get_window_extent() for one in labels]
    pairs = zip(labels, labels[1:], boxes, boxes[1:], strict=False)
    return [(a.get_text(), b.get_text()) for a, b, left, right in pairs if left.x1 >= right.x0]


@pytest.mark.parametrize("row", ["full", "source: the base as it comes"])
def test_the_names_of_weathers_do_not_run_into_each_other(row: str) -> None:
    assert not overlaps(drawn(WEATHERS, [row, "zero-byte"]))


@settings(max_examples=15, deadline=None)
@given(columns=NAMES, rows=NAMES)
def test_no_two_names_of_columns_touch(columns: list[str], rows: list[str]) -> None:
    assert not overlaps(drawn(columns, rows))


def test_short_names_stand_upright() -> None:
    labels = drawn(["fog", "snow", "frost"], ["full"]).axes[0].get_xticklabels()
    assert [one.get_rotation() for one in labels] == [0, 0, 0]
