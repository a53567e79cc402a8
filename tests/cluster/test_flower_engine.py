"""Laws of the engine "flower": what Flower's runtime on Ray computes is what this process computes, byte for byte."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import ray
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod
from small_runs import rounds_run, rows, simulated, tiny

from fed_lorac.client.handlers import FleetApp
from fed_lorac.client.request import ClientReply, ClientRequest
from fed_lorac.client.state import GlobalModel
from fed_lorac.config import Config
from fed_lorac.config.sections import RunConfig
from fed_lorac.errors import DataError, FrameError, RunError
from fed_lorac.grid.ray.cluster import joined
from fed_lorac.records.ledger import Row
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.simulation import flower_runtime
from fed_lorac.simulation.engines import Fleet, run

ENGINES = ("fleet", "flower")


@pytest.fixture(scope="module", autouse=True)
def a_cluster_of_our_own() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


class Heard(logging.Handler):
    """What Flower says at the terminal, where its level is INFO."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())


def failing(camera: int) -> list[Mod]:
    """A mod under which one camera fails to train. A closure, so that it travels to workers by value."""

    def fail(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if message.metadata.message_type == "train" and context.node_config["partition-id"] == camera:
            raise FrameError("A lens must be clean;\ncamera 1's is not. Wipe it.")
        return call_next(message, context)

    return [fail]


class Failing(FleetApp):
    """The same of our own grid's cameras."""

    def answer(self, requests: Sequence[ClientRequest], shared: GlobalModel) -> list[ClientReply]:
        if any(request.camera == 1 and request.message.metadata.message_type == "train" for request in requests):
            raise FrameError("A lens must be clean;\ncamera 1's is not. Wipe it.")
        return super().answer(requests, shared)


def on_fleet(config: Config, out: Path) -> None:
    with task_identity(), closing(Fleet(config, partial(Failing, config.to_flat()))) as fleet:
        rounds_run(fleet.grid, config, out, memories=fleet)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The same run on each engine, and what Flower said; in the second round one camera's reply is an error."""
    folder, heard = tmp_path_factory.mktemp("engines"), Heard()
    logging.getLogger("flwr").addHandler(heard)
    try:
        # Flower's cameras train one at a time; side by side they agree to rounding only.
        settings = {"fleet__per_round": 4}
        on_fleet(tiny(**settings, block_size=1), folder / "fleet")
        simulated(tiny(**settings, run__engine="flower", run__workers=2), folder / "flower", Watch(), failing(camera=1))
    finally:
        logging.getLogger("flwr").removeHandler(heard)
    return folder, heard.words


@pytest.mark.parametrize("name", ["adapter.safetensors", "model.safetensors", "cameras.safetensors", "cameras.jsonl"])
def test_both_engines_leave_the_same_bytes(both: tuple[Path, list[str]], name: str) -> None:
    local, flower = ((both[0] / engine / name).read_bytes() for engine in ENGINES)
    assert local == flower


def test_both_engines_leave_the_same_rounds_but_for_the_time(both: tuple[Path, list[str]]) -> None:
    local, flower = (rows(both[0] / engine / "rounds.jsonl", "seconds") for engine in ENGINES)
    assert local == flower
    assert [row["cameras_counted"] for row in local] == [3, 3]


def test_a_camera_that_fails_says_why_in_its_own_words(both: tuple[Path, list[str]]) -> None:
    reason = "raised: FrameError: A lens must be clean; camera 1's is not. Wipe it."
    for engine in ENGINES:
        assert [row["reasons"] for row in rows(both[0] / engine / "rounds.jsonl")] == [{reason: 1}] * 2


def test_flower_says_nothing_of_a_run_that_goes_well(both: tuple[Path, list[str]]) -> None:
    assert both[1] == []


def test_flower_is_heard_again_after_the_run(both: tuple[Path, list[str]]) -> None:
    assert not logging.getLogger("flwr").filters


def test_ray_is_shut_down_after_the_run(both: tuple[Path, list[str]]) -> None:
    assert not ray.is_initialized()


def test_an_error_of_the_server_comes_out_as_itself(both: tuple[Path, list[str]]) -> None:
    with pytest.raises(RunError, match="already holds one"):
        run(tiny(run__engine="flower"), both[0] / "fleet", Watch())
    assert not ray.is_initialized()


def test_what_is_wrong_with_the_data_is_said_before_ray_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "no cluster's address")
    with pytest.raises(DataError, match="not there"):
        run(tiny(run__engine="flower", model__weights="absent.pt"), tmp_path / "run", Watch())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no cluster's address"])
def test_a_cluster_that_does_not_answer_is_a_run_error(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(RunError, match="Is it up"), joined(RunConfig()):
        pass


class Releasing(Watch):
    """Lets the late camera go on once the first round is over, and gives it time to end its turn."""

    def __init__(self, gate: Path) -> None:
        self.gate = gate

    def round(self, row: Row, of: int) -> None:
        (self.gate / "open").touch()
        while not (self.gate / "through").exists():
            time.sleep(0.1)
        time.sleep(2)  # Flower takes the state over after the turn


@pytest.mark.slow
def test_a_camera_that_ends_its_turn_too_late_is_left_out_and_comes_back(tmp_path: Path) -> None:
    """Flower gives it back the state of before the round; it says so, and gets again what it lacks."""

    def dawdle(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        if message.metadata.message_type == "train" and context.node_config["partition-id"] == 1:
            while not (tmp_path / "open").exists():
                time.sleep(0.1)
            (tmp_path / "through").touch()
        return reply

    config = tiny(run__engine="flower", run__workers=2, run__rounds=3, round_timeout_s=25, fleet__cameras=3)
    simulated(config, tmp_path / "run", Releasing(tmp_path), [dawdle])
    assert [row["reasons"] for row in rows(tmp_path / "run" / "rounds.jsonl")] == [
        {"no reply": 1},
        {"other base": 1},
        {},
    ]


def test_a_run_that_was_stopped_before_it_began_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(flower_runtime, "run_rounds", lambda *_: begun.append("rounds"))
    for stopped in (True, False):
        thread = flower_runtime._ServerThread(tiny(), None, Watch())  # type: ignore[arg-type]
        if stopped:
            thread.stop()
        assert thread.app._main is not None
        thread.app._main(None, None)  # type: ignore[arg-type]
        thread.check()
        assert begun == ([] if stopped else ["rounds"])
