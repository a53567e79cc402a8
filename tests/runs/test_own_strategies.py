"""Laws of strategies of one's own: every reply is billed, read or not, and a broken one is an error that names it."""

from pathlib import Path

import faulty_strategies
import pytest
from small_runs import rows, tiny

from fed_lorac.errors import ConfigError
from fed_lorac.reporting.watch import Watch
from fed_lorac.server.strategy import Strategy
from fed_lorac.simulation.engines import run
from fed_lorac.testing import check_strategy


def test_a_reply_that_a_strategy_does_not_read_is_billed_and_counts(tmp_path: Path) -> None:
    for name in ("faulty_strategies:FirstTwo", "merged"):
        run(tiny(strategy__name=name, run__rounds=1), tmp_path / name, Watch())
    some, all_read = (rows(tmp_path / name / "rounds.jsonl")[0] for name in ("faulty_strategies:FirstTwo", "merged"))
    for column in ("cameras_counted", "cameras_left_out", "uplink_frame_bytes", "full_uplink_frame_bytes"):
        assert some[column] == all_read[column]
    assert some["cameras_counted"] == 3 and some["cameras_left_out"] == 0


def test_a_strategy_may_say_its_source_in_its_docstring_and_leave_out_every_trait(tmp_path: Path) -> None:
    run(tiny(strategy__name="faulty_strategies:Modest", run__rounds=1), tmp_path / "run", Watch())
    assert rows(tmp_path / "run" / "rounds.jsonl")[0]["cameras_counted"] == 3
    check_strategy(faulty_strategies.Modest())


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Returns", "in round 1 it fails with TypeError: propose gives NoneType in place of a Proposal"),
        ("Forgets", "its update lacks .*, which cameras train"),
        ("Adds", "its update has extra.weight, which no camera trains"),
        ("SaysLess", "its exact mean lacks .*, which cameras train"),
        ("KeepsTensors", "momentum of .* is a Tensor, not a DeltaSum"),
        ("Fails", "in round 1 it fails with ValueError: not today"),
    ],
)
def test_a_strategy_that_breaks_its_contract_is_an_error_that_names_it(name: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"faulty_strategies:{name}' is not: {what}"):
        run(tiny(strategy__name=f"faulty_strategies:{name}", run__rounds=1), tmp_path / "run", Watch())


@pytest.mark.parametrize(
    ("strategy", "law"),
    [
        (faulty_strategies.Doubles(), "must gain what all cameras say, as exact promises"),
        (faulty_strategies.LeavesOut(), "must have the mean of all that cameras send; it lacks"),
    ],
)
def test_a_strategy_that_is_not_as_exact_as_it_says_does_not_pass_its_check(strategy: Strategy, law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check_strategy(strategy)
