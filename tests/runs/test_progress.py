"""Laws of what a run shows as it goes: on a terminal of 80 columns, and in a log."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from small_runs import tiny

from fed_lorac.data.progress import at, heard_by, watched
from fed_lorac.reporting.progress import Pace, RichWatch, round_line
from fed_lorac.simulation.engines import run


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_is_unknown_until_a_round_has_ended() -> None:
    clock = Clock()
    pace = Pace(4, clock)
    assert pace.left() is None
    pace.begin()
    clock.now = 10
    assert pace.left() is None
    pace.end()
    assert pace.left() == 30
    clock.now = 14
    assert pace.left() == 26  # it falls while a round goes on
    clock.now = 100
    assert pace.left() == 20  # and never below what the rounds to come take
    pace.end()
    assert pace.left() == 2 * (10 + 90) / 2


def test_nothing_is_left_after_the_last_round() -> None:
    pace = Pace(1, clock := Clock())
    pace.begin()
    clock.now = 5
    pace.end()
    assert pace.left() == 0


def test_a_resumed_run_counts_only_its_own_rounds() -> None:
    pace = Pace(10, clock := Clock())
    pace.done = 7
    assert pace.left() is None
    pace.begin()
    clock.now = 2
    pace.end()
    assert pace.left() == 2 * 2


def test_a_log_has_the_round_lines_alone(tmp_path: Path) -> None:
    log = io.StringIO()
    with RichWatch(Console(file=log, width=40), 2) as watch:
        run(tiny(), tmp_path / "run", watch)
    lines = log.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines] == ["round 1/2", "round 2/2"]  # not broken at 40 columns
    assert all("(4 cameras), 3 counted" in line for line in lines)


def test_a_terminal_sees_what_is_done_before_the_first_round(tmp_path: Path) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=80, color_system=None)
    with RichWatch(console, 2) as watch:
        run(tiny(run__seed=77), tmp_path / "run", watch)  # no other test's: its experiment is not kept from before
    text = shown.getvalue()
    for label in ("opening digits", "assigning images to", "loading the base", "calling the cameras"):
        assert label in text
    assert "-:--:-- left" in text and "0:00:0" in text
    for line in text.replace("\r", "\n").splitlines():
        assert len(line) < 200  # control codes; the columns are counted below


@pytest.mark.parametrize("what", ["short", "training the base on forty thousand images of two hundred classes"])
def test_the_bars_fit_80_columns(what: str) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    watch = RichWatch(console, 10_000)
    watch.at(what, 99_999, 100_000)
    for line in console.render_lines(watch._progress.get_renderable(), pad=False):
        assert sum(segment.cell_length for segment in line) <= 80
    with console.capture() as seen:
        console.print(watch._progress.get_renderable())
    assert "99999/100000" in seen.get() and "left" in seen.get() and len(seen.get().splitlines()) == 2


def test_a_round_line_says_over_how_many_cameras_its_accuracy_is() -> None:
    row = {
        "round": 7,
        "cameras_measured": 9,
        "accuracy": 0.8125,
        "cameras_counted": 10,
        "skipped": False,
        "reasons": {"late": 2},
        "uplink_frame_bytes": 419_000,
        "downlink_frame_bytes": 420_000,
        "seconds": 2.94,
    }
    assert round_line(row, 10) == (
        "round  7/10: 81.2 % (9 cameras), 10 counted, 419 kB up, 420 kB down, 2.9 s; 2 left out: late"
    )
    assert "not measured" in round_line(row | {"cameras_measured": 0, "accuracy": None}, 10)


def test_the_innermost_listener_hears_what_is_being_done() -> None:
    outer: list[tuple[str, int, int | None]] = []
    inner: list[tuple[str, int, int | None]] = []
    at("nobody hears this")
    with heard_by(lambda *said: outer.append(said)):
        at("one")
        with heard_by(lambda *said: inner.append(said)):
            assert list(watched("ab", total=2, title="two")) == ["a", "b"]
    assert outer == [("one", 0, None)]
    assert inner == [("two", 0, 2), ("two", 1, 2), ("two", 2, 2)]
