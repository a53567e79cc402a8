"""Laws of catching up: by updates or a whole base, whichever is smaller; the same base bit for bit, billed as sent."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from cameras import BASE, SHAPES, TEMPLATE, roster, tell, train
from flwr.app import RecordDict
from small_runs import tiny

from fed_lorac.client.state import GlobalModel, catch_up, encode_global_model, fold_updates
from fed_lorac.errors import FrameError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.server.fleet_strategy import Update
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.server.rules import FleetRules
from fed_lorac.server.strategy import FrameSpec
from fed_lorac.simulation.build_strategy import strategy_of
from fed_lorac.wire.billing import FullMessages, MessageSize, frame_record
from fed_lorac.wire.frame import encode
from fed_lorac.wire.refusals import RefusedFrameError
from fed_lorac.wire.updates import (
    global_fingerprint,
    read_updates,
    read_whole_model,
    whole_fingerprint,
    whole_model_key,
)
from strategies.merged import MergedFedAvg


@pytest.fixture(autouse=True, scope="module")
def identity() -> Iterator[None]:
    with task_identity():
        yield


def a_frame(values: int, round: int) -> bytes:
    return encode({"fc.weight": torch.zeros(values)}, dtype="fp32", base=whole_fingerprint(BASE, round))


def told_after(missed: int, base_values: int) -> tuple[FrameStrategy, list[str]]:
    """Camera 2 misses so many updates and then is told; what is in its message."""

    def whole(updates: Sequence[Update]) -> bytes:
        return a_frame(base_values, updates[-1].round)

    spec, rules = FrameSpec(BASE, SHAPES, TEMPLATE), FleetRules(roster=roster(3))
    strategy = FrameStrategy(MergedFedAvg("dense"), spec, rules=rules, encode_global_model=whole)
    for number in range(1, missed):
        train(strategy, number, {0: number, 1: 9 * number})
        tell(strategy, number, deaf=[2])
    train(strategy, missed, {0: 4, 1: 5})
    strategy.report.down.clear()
    strategy.report.caught_up.clear()
    return strategy, tell(strategy, missed)[2]


@pytest.mark.parametrize("missed", [1, 2, 3])
@pytest.mark.parametrize("base_values", [1, 10_000])
def test_the_smaller_is_sent_and_billed(missed: int, base_values: int) -> None:
    strategy, sent = told_after(missed, base_values)
    updates = [update.frame for update in strategy.updates]
    whole = missed > 1 and len(a_frame(base_values, missed)) < sum(map(len, updates))
    assert whole == (missed > 1 and base_values == 1)
    expected = [whole_model_key(missed)] if whole else [f"update-{n:06d}" for n in range(1, missed + 1)]
    assert sent == expected
    bill = strategy.report.down
    assert bill[2].frame_bytes == (len(a_frame(base_values, missed)) if whole else sum(map(len, updates)))
    assert bill[0].frame_bytes == len(updates[-1]) and bill[2].message_bytes > bill[2].frame_bytes
    assert strategy.report.updates_sent == 2 + missed  # what it makes up for, however it went


def test_full_fine_tuning_is_billed_the_smaller_too() -> None:
    up, down, ask, whole = (MessageSize(message_bytes=size) for size in (10, 100, 1, 250))
    full = FullMessages(up, down, ask, whole)
    assert [full.told(missed).message_bytes for missed in range(5)] == [0, 100, 200, 250, 250]


# Runs, whose cameras are often away

AWAY: dict[str, Any] = {
    "run__rounds": 4,
    "fleet__cameras": 5,
    "fleet__per_round": 5,
    "fleet__images": 20,
    "fleet__eval_images": 20,
    "fleet__devices": "limited",
    "availability": 0.45,
    "strategy__quorum": 0.1,
    "block_size": 1,  # as Flower has it, whose models are then the same bytes too
}
METHODS: dict[str, dict[str, Any]] = {
    "dense": {"downlink": "dense"},
    "factors": {"strategy__name": "factor-fedavg"},
}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_camera_that_receives_a_whole_model_has_it_bit_for_bit(method: str) -> None:
    experiment = build_experiment(tiny(**AWAY, **METHODS[method]))
    strategy = strategy_of(experiment)
    frames = updates_of(strategy, 4)
    step_by_step = fold_updates(experiment, GlobalModel(), frames)
    whole = encode_global_model(experiment, step_by_step)
    for before in (GlobalModel(), fold_updates(experiment, GlobalModel(), frames[:2]), step_by_step):
        at_once = catch_up(experiment, before, (4, whole), [])
        assert at_once.round == 4
        for ours, theirs in ((at_once.tensors, step_by_step.tensors), (at_once.factors, step_by_step.factors)):
            assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert bool(step_by_step.factors) == (method == "factors")
    assert catch_up(experiment, step_by_step, (2, whole), []) is step_by_step  # an older one changes nothing
    with pytest.raises(FrameError):
        catch_up(experiment, GlobalModel(), (3, whole), [])  # it says round 3 and is of round 4


def updates_of(strategy: FrameStrategy, rounds: int) -> list[tuple[int, bytes]]:
    """Updates of the strategy's own making, out of random states."""

    found = []
    for number in range(1, rounds + 1):
        g = torch.Generator().manual_seed(number)
        state = {name: 0.1 * torch.randn(shape, generator=g) for name, shape in strategy.spec.template.items()}
        update = strategy.strategy.propose(strategy.state, [strategy.state.client_delta(0, 1.0, state)]).update
        found.append((number, encode(update, dtype="fp32", base=global_fingerprint(strategy.spec.base, number - 1))))
    return found


def test_a_message_says_which_it_brings() -> None:
    content = RecordDict({whole_model_key(7): frame_record(b"whole"), "config": frame_record(b"")})
    assert read_whole_model(content) == (7, b"whole") and read_updates(content) == []
    assert read_whole_model(RecordDict({"update-000007": frame_record(b"one")})) is None


@pytest.mark.parametrize("round", ["x", "", "-1", "1.5", "\u0661", "1_0", "9" * 5000], ids=lambda text: ascii(text[:5]))
def test_a_record_that_names_no_round_is_a_malformed_envelope(round: str) -> None:
    for prefix, read in (("update-", read_updates), ("base-", read_whole_model)):
        with pytest.raises(RefusedFrameError, match="named after its round") as refused:
            read(RecordDict({f"{prefix}{round}": frame_record(b"one")}))
        assert refused.value.reason == "malformed envelope"
