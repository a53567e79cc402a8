"""Laws of updates on their way down: everyone once, again to whom confirmed nothing, each time billed."""

from collections.abc import Iterator
from typing import Any

import pytest
from cameras import BASE, GRID, reply, served, tell, train
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fed_lorac.errors import FrameError
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.wire.billing import MessageSize
from fed_lorac.wire.updates import read_updates, unfolded
from strategies.merged import MergedFedAvg


@pytest.fixture(autouse=True, scope="module")
def identity() -> Iterator[None]:
    with task_identity():
        yield


def merged(cameras: int = 3, **changes: Any) -> FrameStrategy:
    return served(MergedFedAvg, cameras, **changes)


def test_every_update_goes_to_everyone_once_and_is_billed_once():
    strategy = merged(4, draw=lambda number: [number % 4])
    for number in range(1, 4):
        train(strategy, number, {number % 4: number})
        asked = dict(strategy.report.down)
        assert asked.keys() == {number % 4} and asked[number % 4].frame_bytes == 0 < asked[number % 4].message_bytes
        assert tell(strategy, number) == {camera: [f"update-{number:06d}"] for camera in range(4)}
        size = len(strategy.updates[-1].frame)
        assert {camera: weight.frame_bytes for camera, weight in strategy.report.down.items()} == dict.fromkeys(
            range(4), size
        )
        assert strategy.report.updates_sent == 4
    assert strategy.confirmed == dict.fromkeys(range(4), 3)


def test_an_evaluation_without_an_update_is_not_billed():
    strategy = merged(3)
    assert tell(strategy, 0) == {0: [], 1: [], 2: []}
    assert not strategy.report.down and strategy.report.updates_sent == 0


def test_a_camera_that_confirmed_nothing_gets_it_again_and_is_billed():
    strategy = merged(3)
    train(strategy, 1, {0: 4, 1: 5, 2: 6})
    tell(strategy, 1, deaf=[2])
    train(strategy, 2, {0: 4, 1: 5})  # 2 is asked, with round 1's update, and does not answer
    first = len(strategy.updates[0].frame)
    assert {k: weight.frame_bytes for k, weight in strategy.report.down.items()} == {0: 0, 1: 0, 2: first}
    both = ["update-000001", "update-000002"]
    assert tell(strategy, 2) == {0: both[1:], 1: both[1:], 2: both}
    assert strategy.report.down[2].frame_bytes == 2 * first + len(strategy.updates[1].frame)
    assert strategy.report.updates_sent == 1 + 4
    assert strategy.confirmed == {0: 2, 1: 2, 2: 2}


def test_multicast_sends_the_update_once_a_link_and_the_rest_to_each():
    """Five cameras on two links; one of them missed a round, and is sent that and the new one by itself."""
    strategy = merged(5, link=lambda camera: "lte-m" if camera < 3 else "nb-iot-nb2")
    train(strategy, 1, {camera: 4 for camera in range(5)})
    tell(strategy, 1, deaf=[2])
    train(strategy, 2, {camera: 4 for camera in (0, 1, 3, 4)})
    asked = sum(size.message_bytes for size in strategy.report.down.values())
    tell(strategy, 2)
    report, update = strategy.report, len(strategy.updates[1].frame)
    assert report.caught_up[1] == 1 + 4 and report.caught_up[2] == 1 and report.repeats == 2
    assert report.repeated.frame_bytes == 2 * update
    alone = report.repeated.message_bytes // 2
    sent = sum(size.message_bytes for size in report.down.values()) - report.repeated.message_bytes
    both = report.down[2].message_bytes - asked + sum(report.down[c].message_bytes - alone for c in (0, 1, 3, 4))
    assert sent == asked + 2 * alone + both
    tell(strategy, 2)
    assert report.repeats == 2  # nothing is lacking any more


def test_nothing_is_saved_where_each_camera_has_a_link_of_its_own():
    strategy = merged(3, link=str)
    train(strategy, 1, {0: 4, 1: 5, 2: 6})
    tell(strategy, 1)
    assert strategy.report.repeats == 0 and strategy.report.repeated == MessageSize()


def test_a_counted_frame_confirms_what_its_base_has_folded():
    strategy = merged(2)
    train(strategy, 1, {0: 4, 1: 5})
    tell(strategy, 1, deaf=[0, 1])
    train(strategy, 2, {0: 4})
    assert strategy.confirmed == {0: 1, 1: 0}


def test_a_camera_is_not_believed_what_cannot_be():
    strategy = merged(2)
    train(strategy, 1, {0: 4, 1: 5})
    for claim in (7, -1, 0.5):
        metrics = MetricRecord({"num-examples": 1, "folded-round": claim})
        strategy.aggregate_evaluate(1, [reply(0, RecordDict({"metrics": metrics}))])
    assert strategy.confirmed[0] == 0


def test_folding_is_idempotent_and_in_order():
    strategy = merged(2)
    for number in (1, 2, 4):
        train(strategy, number, {0: number, 1: 9 * number})
    [*_, message] = strategy.configure_evaluate(4, ArrayRecord(), ConfigRecord(), GRID)
    sent = read_updates(message.content)
    strategy.confirmed.clear()
    everything = read_updates(next(iter(strategy.configure_evaluate(4, ArrayRecord(), ConfigRecord(), GRID))).content)
    assert [number for number, _ in sent] == [4] and [number for number, _ in everything] == [1, 2, 4]
    assert [number for number, _ in unfolded(reversed(everything), BASE, 0)] == [1, 2, 4]
    assert [number for number, _ in unfolded(everything, BASE, 2)] == [4]
    assert not list(unfolded(everything + everything, BASE, 4))
    with pytest.raises(FrameError, match="base"):
        list(unfolded(sent, BASE, 1))  # round 2 is missing
