"""Laws of messages that the radio loses: the chance by two routes, what is billed, who misses what and catches up."""

import json
import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cameras import served, tell, train
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_runs import rows, tiny

from fed_lorac.experiment.build import build_experiment
from fed_lorac.fleet.losses import Losses
from fed_lorac.radio.cellular import LTE_M, NB1
from fed_lorac.radio.link import Crossing, Link
from fed_lorac.radio.lora import time_on_air_s
from fed_lorac.radio.lorawan import DR5
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.simulation.engines import run
from fed_lorac.wire.refusals import LOST, NOT_ASKED
from strategies.merged import MergedFedAvg

# ---- Chances: the closed form against drawn packets ----

TRIALS = 40_000


def drawn(link: Any, packets: int, *, up: bool) -> tuple[float, float]:
    """(share of messages that arrive whole, mean transmissions of a packet), packet by packet."""
    rng, shape = np.random.default_rng(5), (TRIALS, packets)
    goes = link.repetitions if up and not link.confirmed else link.attempts
    there, done, sent = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, int)
    for _ in range(goes):
        trying = ~done
        out, back = rng.random(shape) >= link.loss, rng.random(shape) >= link.loss
        sent += trying
        if up:
            there |= trying & out
            done |= trying & out & back & link.confirmed
        else:  # in class A an empty packet up has to come through first
            came = out & (back | (link.device_class == "C"))
            there |= trying & came
            done |= trying & came
    return float(there.all(axis=1).mean()), float(sent.mean())


@pytest.mark.parametrize("loss", [0.05, 0.4])
@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("settings", [{"repetitions": 2}, {"confirmed": True}, {"device_class": "C"}], ids=str)
def test_what_a_message_costs_and_whether_it_arrives_is_as_packet_by_packet(
    settings: dict[str, Any], attempts: int, loss: float
) -> None:
    link = replace(DR5, loss=loss, attempts=attempts, **settings)
    sure = replace(link, loss=0.0, repetitions=1, confirmed=False)
    n = 3 * 239
    for way, packets in (("up", link.up(n).packets), ("down", link.down(n).packets)):
        found, whole, ideal = (getattr(one, way)(n) for one in (link, replace(link, attempts=15), sure))
        arrives, sent = drawn(link, packets, up=way == "up")
        spread = 4 * math.sqrt(max(arrives * (1 - arrives), 1e-4) / TRIALS)
        assert found.arrives == pytest.approx(arrives, abs=spread) and found.arrives <= whole.arrives
        on_air = "transmit_s" if way == "up" or link.device_class == "A" else "station_s"
        times = getattr(found, on_air) / getattr(ideal, on_air)
        assert times == pytest.approx(sent, rel=0.02)


@pytest.mark.parametrize("settings", [{}, {"repetitions": 2}, {"confirmed": True}], ids=str)
def test_a_repair_comes_where_the_packet_that_asks_for_it_came_and_all_of_it_does(settings: dict[str, Any]) -> None:
    link = replace(DR5, device_class="C", downlink="multicast", loss=0.3, attempts=3, **settings)
    n = 2 * 48
    down, found = link.down(n), link.repair(n)
    asked, times = drawn(link, 1, up=True)
    came, _ = drawn(link, down.packets, up=False)
    assert found.arrives == pytest.approx(asked * came, abs=4 * math.sqrt(0.25 / TRIALS)) and asked < 1
    assert found.transmit_s == pytest.approx(times * time_on_air_s(12, 7, 125_000), rel=0.02)
    asks = found.bytes_on_air - down.bytes_on_air
    acknowledged = 12 * asked / 0.7 if link.confirmed else 0  # each packet that came has it until one comes through
    assert asks == pytest.approx(12 * times + acknowledged, abs=5 if link.confirmed else 0)
    assert link.repair(0) == Crossing()


@given(st.integers(1, 20_000), st.floats(0.0, 0.8), st.integers(1, 9))
def test_attempts_without_end_lose_nothing_and_many_are_as_good(n: int, loss: float, attempts: int) -> None:
    for link in (NB1, LTE_M, DR5, replace(DR5, confirmed=True), replace(DR5, device_class="C")):
        for way in ("up", "down"):
            lossy = replace(link, loss=loss)
            few, more, many, endless = (
                getattr(replace(lossy, attempts=k), way)(n) for k in (attempts, attempts + 1, 15, 0)
            )
            assert few.arrives <= more.arrives <= many.arrives <= endless.arrives
            assert few.transmit_s <= more.transmit_s * (1 + 1e-9) <= endless.transmit_s * (1 + 2e-9)
    assert NB1.down(n) == replace(NB1, attempts=attempts).down(n) and not replace(NB1, attempts=attempts).loses


# ---- The server: what is lost is as if it had not come ----


@dataclass(frozen=True)
class Lost:
    """Cameras that lose what they send, or what they are sent in a kind of message."""

    up_of: frozenset[int] = frozenset()
    down_of: frozenset[tuple[int, str]] = frozenset()

    def up(self, round: int, camera: int, n_bytes: int) -> bool:
        return camera in self.up_of

    def down(
        self, round: int, kind: str, link: str, cameras: NDArray[np.int64], n_bytes: int, *, update: bool
    ) -> NDArray[np.bool_]:
        return np.array([n_bytes > 0 and (int(camera), kind) in self.down_of for camera in cameras])


def test_a_lost_reply_is_billed_and_is_not_in_the_mean() -> None:
    with task_identity():
        lossy, fewer = (served(MergedFedAvg, 3, **more) for more in ({"losses": Lost(frozenset({1}))}, {}))
        train(lossy, 1, {0: 4, 1: 5, 2: 6})
        train(fewer, 1, {0: 4, 2: 6})
    assert lossy.updates[0].frame == fewer.updates[0].frame
    (reply,) = (one for one in lossy.report.replies if not one.counted)
    assert (reply.camera, reply.reason) == (1, LOST) and reply.size.frame_bytes > 0


def test_who_loses_an_update_is_billed_for_it_and_catches_up() -> None:
    with task_identity():
        strategy = served(MergedFedAvg, 3, losses=Lost(down_of=frozenset({(2, "evaluate")})))
        train(strategy, 1, {0: 4, 1: 5, 2: 6})
        assert set(tell(strategy, 1)) == {0, 1} and strategy.report.updates_lost == 1
        first = len(strategy.updates[0].frame)
        assert strategy.report.down[2].frame_bytes == first and strategy.confirmed[2] == 0
        train(strategy, 2, {0: 4, 1: 5, 2: 6})
        assert strategy.report.down[2].frame_bytes == first  # asked, with what it lacks


def test_who_loses_the_message_that_asks_does_not_train_and_is_named() -> None:
    with task_identity():
        strategy = served(MergedFedAvg, 3, losses=Lost(down_of=frozenset({(2, "train")})))
        train(strategy, 1, {0: 4, 1: 5, 2: 6})  # asked without a frame: nothing crosses the radio
        assert all(reply.counted for reply in strategy.report.replies)
        tell(strategy, 1, deaf=[2])
        train(strategy, 2, {0: 4, 1: 5})
    assert [(one.camera, one.reason) for one in strategy.report.replies if not one.counted] == [(2, NOT_ASKED)]
    assert strategy.report.down[2].frame_bytes == len(strategy.updates[0].frame)


# ---- Runs ----

FLEET = {
    "fleet__cameras": 8,
    "fleet__per_round": 6,
    "fleet__images": 20,
    "fleet__eval_images": 20,
    "fleet__link": "nb-iot-nb1",
    "strategy__quorum": 0.1,
    "local__schedule": "constant",
    "run__rounds": 4,
}
LOSS = {"fleet__nb-iot__loss": 0.05, "fleet__nb-iot__attempts": 1}


def done(out: Path, *, resume: bool = False, **more: Any) -> Path:
    run(tiny(**FLEET | more), out, Watch(), resume=resume)
    return out


@pytest.fixture(scope="module")
def lossy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return done(tmp_path_factory.mktemp("lossy"), **LOSS)


def test_the_ledger_says_what_the_streams_lose(lossy: Path) -> None:
    losses = Losses(build_experiment(tiny(**FLEET, **LOSS)).fleet)
    cameras, seen = rows(lossy / "cameras.jsonl"), Counter[str]()
    for row in rows(lossy / "rounds.jsonl"):
        its = [one for one in cameras if one["round"] == row["round"]]
        reasons = Counter(one["reason"] for one in its if one["status"] == "left out")
        assert row["reasons"] == reasons and set(reasons) <= {LOST, NOT_ASKED}
        for one in its:
            if one["status"] == "idle" or one["reason"] == NOT_ASKED:
                assert one["uplink_frame_bytes"] == 0
                continue
            assert (one["reason"] == LOST) == losses.up(row["round"], one["camera"], one["uplink_frame_bytes"])
            assert one["uplink_frame_bytes"] > 0 < one["uplink_air_time_s"] and one["uplink_bytes_on_air"] > 0
        assert row["uplink_frame_bytes"] == sum(one["uplink_frame_bytes"] for one in its)
        unmeasured = [one["camera"] for one in its if one["accuracy"] is None]
        assert row["updates_lost"] == len(unmeasured) == 8 - row["cameras_measured"]
        seen.update(reasons)
        seen["updates"] += row["updates_lost"]
    assert seen[LOST] and seen[NOT_ASKED] and seen["updates"]


def test_nothing_is_lost_without_loss_and_the_ledger_is_the_same(tmp_path: Path) -> None:
    ideal = done(tmp_path / "ideal", run__rounds=2)
    sure = done(tmp_path / "sure", run__rounds=2, **{"fleet__nb-iot__attempts": 1})
    for name in ("rounds", "cameras"):
        assert rows(ideal / f"{name}.jsonl", "seconds") == rows(sure / f"{name}.jsonl", "seconds")


def test_a_lossy_run_that_goes_on_ends_as_one_that_was_not_stopped(tmp_path: Path, lossy: Path) -> None:
    done(tmp_path, **LOSS, run__rounds=2)
    done(tmp_path, **LOSS, resume=True)
    assert rows(tmp_path / "cameras.jsonl") == rows(lossy / "cameras.jsonl")
    assert (tmp_path / "adapter.safetensors").read_bytes() == (lossy / "adapter.safetensors").read_bytes()


def test_where_all_who_have_a_message_lose_it_the_others_have_still_heard(tmp_path: Path) -> None:
    together = {"fleet__deal": "overlapping", "evaluate_cameras": 1, "fleet__cameras": 20, "fleet__per_round": 1}
    lossy = {"fleet__link": "nb-iot-nb1", "loss": 0.2, "attempts": 2, "quorum": 1}
    run(tiny(**together, **lossy, run__rounds=20, run__seed=2, fleet__images=10), tmp_path, Watch())
    ledger = rows(tmp_path / "rounds.jsonl")
    assert sum(row["cameras_counted"] for row in ledger) > 5 and sum(row["updates_lost"] for row in ledger) > 5
    assert {reason for row in ledger for reason in row["reasons"]} <= {LOST, NOT_ASKED}


def test_who_loses_a_part_of_a_multicast_asks_again_and_can_lose_that_too() -> None:
    settings = {"fleet__nb-iot__downlink": "multicast", "fleet__cameras": 400, "fleet__deal": "overlapping"}
    fleet = build_experiment(tiny(**FLEET | LOSS | settings)).fleet
    losses, over, cameras, n = Losses(fleet), fleet.links["nb-iot-nb1"], np.arange(400), 9_000
    asks, misses = (
        losses.asks_again(1, over.name, cameras, n),
        losses.down(1, "evaluate", over.name, cameras, n, update=True),
    )
    assert (misses <= asks).all() and 0 < misses.sum() < asks.sum()
    assert asks.mean() == pytest.approx(1 - 0.95**9, abs=0.1)
    assert misses.mean() == pytest.approx((1 - 0.95**9) ** 2, abs=0.1)


def test_a_link_of_ones_own_loses_what_it_says() -> None:
    class Torn(Link):
        def up(self, n_bytes: int) -> Crossing:
            return replace(super().up(n_bytes), arrives=0.5)

    assert Torn("torn", 1.0, 1.0, 1.0, "a test's").loses and not Link("whole", 1.0, 1.0, 1.0, "a test's").loses


def test_a_plan_says_that_an_update_may_not_arrive() -> None:
    import fed_lorac as fl

    (row,) = fl.plan(tiny(**FLEET | LOSS), methods=["own"]).rows
    assert any("an update arrives whole with probability" in problem for problem in row.problems)
    assert json.loads(json.dumps(row.problems))
