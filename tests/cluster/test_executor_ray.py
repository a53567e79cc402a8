"""Laws of the executor on Ray, each with the real fault: processes killed, hung and stopped."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray
from executor_apps import SEEN, Naughty, Threads, blocks, broken, request, said, sizes
from flwr.app import MetricRecord, RecordDict
from ray.exceptions import ObjectLostError
from small_runs import ROOT, tiny

from fed_lorac.errors import RunError
from fed_lorac.grid.executor import Block, Executor, Failure, SerialExecutor
from fed_lorac.grid.ray.executor import RayExecutor
from fed_lorac.grid.ray.worker import Worker
from fed_lorac.grid.ray.worker_slot import Doing, Timeouts
from fed_lorac.runtime.flower_private import task_identity

WORKERS, CPUS, TIMEOUT_S = 2, 4, 3.0
ALL = {camera: 3 for camera in range(6)}


@pytest.fixture(scope="module")
def a_ray() -> Iterator[None]:
    """One Ray for all tests; executors stay in the one that their process has joined."""
    with pytest.MonkeyPatch.context() as patch, task_identity():
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests/helpers"), str(ROOT)]))
        ray.init("local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def staff(a_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RayExecutor, Naughty]]:
    app = Naughty(tmp_path_factory.mktemp("deeds"))
    config = tiny(run__workers=WORKERS, block_timeout_s=TIMEOUT_S)
    executor = RayExecutor(config, partial(Naughty, app.home), examined=False)
    yield executor, app
    executor.close()


@pytest.fixture(autouse=True)
def all_is_well_in_the_end(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test of the staff, the executor has all its workers, and a later run is untouched."""
    yield
    if "staff" in request.fixturenames:
        executor, app = request.getfixturevalue("staff")
        deadline = time.monotonic() + 120
        while any(post.doing not in (Doing.FREE, Doing.ASKED) for post in executor._slots):
            assert time.monotonic() < deadline
            list(executor.run(blocks(1, 1)))  # an executor looks after its workers while it runs
            time.sleep(0.05)
        app.told({})
        assert sizes(executor.run(blocks(6, 3))) == ALL
        assert app.attempts() == [[0, 1, 2], [3, 4, 5]]
        assert len({ray.get(post._actor.ping.remote()) for post in executor._slots}) == WORKERS


def test_workers_say_what_one_process_says(staff: tuple[RayExecutor, Naughty]):
    executor, app = staff
    executors: list[Executor] = [executor, SerialExecutor(app)]
    assert said(executors[0].run(blocks(7, 3, shared=5))) == said(executors[1].run(blocks(7, 3, shared=5)))
    remembered = RecordDict({SEEN: MetricRecord({"n": 41})})
    [[answer]] = executor.run([Block((request(0, remembered),))])
    assert answer.message.content.metric_records["metrics"]["n"] == 42 == answer.state.metric_records[SEEN]["n"]
    assert remembered.metric_records[SEEN]["n"] == 41


def test_no_blocks_no_answers(staff: tuple[RayExecutor, Naughty]):
    assert list(staff[0].run([])) == []


def test_answers_come_in_the_order_of_the_blocks_though_others_finish_first(staff: tuple[RayExecutor, Naughty]):
    executor, app = staff
    app.told({0: "slow", 6: "slow"})
    assert list(said(executor.run(blocks(10, 1)))) == list(range(10))
    slow = next(words for words in app.notes() if words[0] == "0")  # not the first note: both workers begin at once
    overtook = [words[0] for words in app.notes() if words[1] != slow[1]]
    assert len(app.processes()) == WORKERS and set(overtook) >= {"1", "2", "3"}


def test_blocks_are_taken_as_there_is_room(staff: tuple[RayExecutor, Naughty]):
    executor, app = staff
    app.told({0: "slow"})
    pulled: list[int] = []
    for done, _ in enumerate(executor.run(blocks(40, 1, pulled=pulled)), start=1):
        assert len(pulled) <= done + 2 * WORKERS
    assert len(pulled) == 40


def test_what_is_shared_is_put_once_and_fetched_once(
    staff: tuple[RayExecutor, Naughty], monkeypatch: pytest.MonkeyPatch
):
    executor, app = staff
    app.told({})
    puts, put = list[object](), ray.put

    def counted(value: object) -> object:
        puts.append(value)
        return put(value)

    monkeypatch.setattr(ray, "put", counted)
    base = np.array(1)
    for _ in range(2):
        list(executor.run(blocks(20, 1, shared=base)))
    assert len(puts) == 1 and puts[0] is base
    seen_by = {pid: {words[2] for words in app.notes() if words[1] == pid} for pid in app.processes()}
    assert all(len(objects) == 1 for objects in seen_by.values())
    told = said(executor.run(blocks(4, 1, shared=np.array(3))))
    assert [words["shared"] for words in told.values()] == [3] * 4 and len(puts) == 2  # type: ignore[index]


def test_a_worker_killed_in_mid_block_is_replaced_and_its_block_retried_as_it_was(
    staff: tuple[RayExecutor, Naughty], caplog: pytest.LogCaptureFixture
):
    executor, app = staff
    app.told({4: "kill once"})
    assert sizes(executor.run(blocks(6, 3))) == ALL
    assert app.attempts() == [[0, 1, 2], [3, 4, 5], [3, 4, 5]]


def test_a_camera_that_always_kills_is_left_out_alone(staff: tuple[RayExecutor, Naughty]):
    executor, app = staff
    app.told({1: "kill"})
    assert sizes(executor.run(blocks(6, 3))) == ALL | {0: 1, 1: "worker died", 2: 1}
    assert app.attempts() == [[0], [0, 1, 2], [0, 1, 2], [1], [2], [3, 4, 5]]


@pytest.mark.parametrize("how", ["spin", *(pytest.param(how, marks=pytest.mark.slow) for how in ("hang", "stop"))])
def test_a_worker_that_hangs_is_replaced_at_the_deadline(staff: tuple[RayExecutor, Naughty], how: str):
    executor, app = staff
    app.told({4: f"{how} once"})
    before = time.monotonic()
    assert sizes(executor.run(blocks(6, 3))) == ALL
    assert time.monotonic() - before > TIMEOUT_S
    assert app.attempts() == [[0, 1, 2], [3, 4, 5], [3, 4, 5]]


@pytest.mark.slow
def test_a_camera_that_always_hangs_is_left_out_alone(staff: tuple[RayExecutor, Naughty]):
    executor, app = staff
    app.told({1: "hang"})
    assert sizes(executor.run(blocks(6, 3))) == ALL | {0: 1, 1: "no reply within 3 s", 2: 1}


def test_a_camera_that_raises_is_left_out_and_its_own_traceback_shown_once(
    staff: tuple[RayExecutor, Naughty], caplog: pytest.LogCaptureFixture
):
    executor, app = staff
    app.told({1: "raise", 5: "raise"})
    dirty = "ValueError: the lens is dirty"
    assert sizes(executor.run(blocks(6, 3))) == {0: 1, 1: dirty, 2: 1, 3: 1, 4: 1, 5: dirty}
    assert app.attempts() == [[0], [0, 1, 2], [1], [2], [3], [3, 4, 5], [4], [5]]
    assert caplog.text.count("Traceback") == 1 and "in _raise" in caplog.text and "RayTaskError" not in caplog.text


def test_a_worker_that_died_between_runs_costs_nobody_a_try(staff: tuple[RayExecutor, Naughty]):
    executor, app = staff
    app.told({})
    for post in executor._slots:
        os.kill(ray.get(post._actor.ping.remote()), signal.SIGKILL)
    time.sleep(0.5)
    assert sizes(executor.run(blocks(6, 3))) == ALL
    assert app.attempts() == [[0, 1, 2], [3, 4, 5]]


def test_a_run_that_is_left_early_does_not_disturb_the_next(staff: tuple[RayExecutor, Naughty]):
    executor, app = staff
    app.told({1: "slow"})
    left = executor.run(blocks(9, 1))
    next(left)
    assert sizes(executor.run(blocks(6, 3))) == ALL
    with pytest.raises(RunError, match="one run at a time"):
        next(left)


def test_a_run_without_blocks_waits_for_nobody(staff: tuple[RayExecutor, Naughty]):
    executor, app = staff
    app.told({0: "slow", 1: "slow", 2: "slow"})
    next(executor.run(blocks(3, 1)))
    before = time.monotonic()
    assert list(executor.run([])) == [] and time.monotonic() - before < 0.4


def test_threads_are_the_configs(a_ray: None):
    executor = RayExecutor(tiny(run__workers=1, run__threads=2), Threads, examined=False)
    try:
        assert sizes(executor.run(blocks(1, 1))) == {0: 2}
    finally:
        executor.close()


def test_a_cluster_without_room_for_all_workers_is_a_run_error(a_ray: None):
    with pytest.raises(
        RunError, match=r"has 4 CPUs and 0 GPUs.*room for 4 workers, and run.workers = 5. Set run.workers = 4"
    ):
        RayExecutor(tiny(run__workers=5), Threads, examined=False)


def test_an_app_that_cannot_be_built_is_a_run_error_that_names_the_node(a_ray: None):
    with pytest.raises(RunError, match=r"Node \S+ \([\d.]+, \w{8}\) could not build .*OSError: no app today"):
        RayExecutor(tiny(run__workers=1), broken, examined=False)


def test_workers_that_never_come_up_are_given_up(a_ray: None, caplog: pytest.LogCaptureFixture):
    impatient = Timeouts(arrive_s=0.01, starts=2)
    with pytest.raises(RunError, match=r"none is left.*found no place within 0.02 s: .* of its 4 CPUs are free"):
        RayExecutor(tiny(run__workers=1), Threads, examined=False, timeouts=impatient)


def test_a_worker_that_cannot_fetch_what_is_shared_has_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_: object) -> None:
        raise ObjectLostError("00" * 28, None, "")

    monkeypatch.setattr(ray, "get", lost)
    worker = Worker.__new__(Worker)  # its __init__ is for a process of its own
    worker._app, worker._shared = Naughty(tmp_path), (0, None)
    found = worker.work([], 1, ["a reference"])  # type: ignore[list-item]
    assert isinstance(found, Failure) and found.kind == "died"
    assert "what all cameras share did not reach it: ObjectLostError" in found.reason
