"""Laws of who is asked again, and of the executor in this process."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from executor_apps import SEEN, Naughty, Threads, blocks, request, said, sizes
from flwr.app import MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from hypothesis import given
from hypothesis import strategies as st
from small_runs import environment

from fed_lorac.client.request import ClientReply, ClientRequest
from fed_lorac.grid.executor import (
    Attempt,
    Block,
    BlockApp,
    Executor,
    Failure,
    RetryQueue,
    SerialExecutor,
    left_out,
    next_attempts,
    raised,
)
from fed_lorac.grid.threads import ThreadExecutor
from fed_lorac.runtime.flower_private import task_identity

DIED, LATE, RAISED = (Failure(kind, kind) for kind in ("died", "late", "raised"))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with task_identity():
        yield


def attempt(*places: int, losses: int = 0) -> Attempt:
    return Attempt(0, Block(()), places, losses)


@pytest.mark.parametrize("failure", [DIED, LATE])
def test_a_block_that_is_lost_is_tried_once_more_and_then_camera_by_camera(failure: Failure):
    [again] = next_attempts(attempt(0, 1, 2), failure)
    assert again == attempt(0, 1, 2, losses=1)
    alone = next_attempts(again, failure)
    assert alone == [attempt(place, losses=1) for place in range(3)]
    assert next_attempts(alone[0], failure) == []


def test_a_block_that_raises_is_asked_camera_by_camera_at_once():
    alone = next_attempts(attempt(0, 1), RAISED)
    assert alone == [attempt(0), attempt(1)]
    assert next_attempts(alone[1], RAISED) == []


def test_a_camera_alone_may_lose_one_worker_and_no_second():
    [again] = next_attempts(attempt(3), DIED)
    assert again == attempt(3, losses=1) and next_attempts(again, LATE) == []


@given(st.integers(0, 9), st.integers(1, 4), st.integers(1, 5), st.data())
def test_whatever_fails_everyone_is_answered_once_and_in_order(
    n_blocks: int, size: int, ahead: int, data: st.DataObject
):
    """An attempt in hand may end in any way, at any time; a guilty camera spoils every block that it is in."""
    with task_identity():
        cameras = n_blocks * size
        guilty = data.draw(st.sets(st.integers(0, max(0, cameras - 1))))
        pulled: list[int] = []
        queue = RetryQueue(blocks(cameras, size, pulled=pulled), ahead)
        given_back: list[list[ClientReply]] = []
        in_hand: list[Attempt] = []
        while not queue.finished:
            while (got := queue.next()) is not None:
                in_hand.append(got)
            assert len(pulled) <= len(given_back) + ahead
            if in_hand:
                one = in_hand.pop(data.draw(st.integers(0, len(in_hand) - 1)))
                if guilty & {v.camera for v in one.requests}:
                    queue.failed(one, data.draw(st.sampled_from([DIED, LATE, RAISED])))
                else:
                    queue.done(one, [ClientReply(v.message, v.state) for v in one.requests])
            while (replies := queue.due()) is not None:
                given_back.append(replies)
        assert not in_hand
        told = [reply.message for replies in given_back for reply in replies]
        assert [len(replies) for replies in given_back] == [size] * n_blocks
        assert {n for n, reply in enumerate(told) if reply.has_error()} == {g for g in guilty if g < cameras}


def test_a_camera_that_is_left_out_gives_its_reason_and_keeps_its_state():
    one = request(3, RecordDict({SEEN: MetricRecord({"n": 7})}))
    try:
        raise ValueError("a lens\n  is dirty")
    except ValueError as error:
        failure = raised(error)
    for kind, code in ((failure, ErrorCode.CLIENT_APP_RAISED_EXCEPTION), (LATE, ErrorCode.CLIENT_APP_CRASHED)):
        reply = left_out(one, kind)
        assert reply.state is one.state and reply.message.metadata.src_node_id == 1003
        assert (reply.message.error.code, reply.message.error.reason) == (code, kind.reason)
    assert failure.reason == "ValueError: a lens is dirty" and "Traceback" in failure.details


def test_here_one_block_is_taken_at_a_time(tmp_path: Path):
    pulled: list[int] = []
    executor: Executor = SerialExecutor(Naughty(tmp_path))
    replies = executor.run(blocks(6, 2, shared=5, pulled=pulled))
    assert pulled == []
    for number in range(3):
        assert list(said([next(replies)])) == [2 * number, 2 * number + 1]
        assert pulled == list(range(number + 1))
    assert list(replies) == []
    executor.close()


def in_threads(app: BlockApp) -> ThreadExecutor:
    return ThreadExecutor(app, 2, 1)


HERE = pytest.mark.parametrize("executor", [SerialExecutor, in_threads])


@HERE
def test_a_camera_that_raises_is_left_out_and_its_traceback_is_shown_once(
    executor: Callable[[BlockApp], Executor], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    app = Naughty(tmp_path).told({1: "raise", 3: "raise together", 7: "raise"})
    assert sizes(executor(app).run(blocks(8, 2))) == {
        0: 1, 1: "ValueError: the lens is dirty", 2: 1, 3: 1, 4: 2, 5: 2, 6: 1, 7: "ValueError: the lens is dirty",
    }  # fmt: skip
    assert caplog.text.count("Traceback") == 1 and "in _raise" in caplog.text
    assert app.attempts() == [[0], [0, 1], [1], [2], [2, 3], [3], [4, 5], [6], [6, 7], [7]]


@HERE
def test_here_an_app_that_leaves_answers_out_has_raised(executor: Callable[[BlockApp], Executor], tmp_path: Path):
    told = sizes(executor(Naughty(tmp_path).told({1: "few"})).run(blocks(2, 2)))
    assert told == {0: 1, 1: "ValueError: An app replies each request once; 0 replies came to 1 requests."}


def test_threads_answer_in_order_whoever_is_done_first_and_take_few_blocks_ahead(tmp_path: Path):
    pulled: list[int] = []
    executor = ThreadExecutor(Naughty(tmp_path).told({0: "slow"}), 2, 1)
    replies = executor.run(blocks(12, 2, shared=5, pulled=pulled))
    assert pulled == []
    assert list(said([next(replies)])) == [0, 1] and pulled == [0, 1, 2, 3, 4]
    assert list(said(replies)) == list(range(2, 12))
    executor.close()


def test_threads_work_at_the_same_time():
    both = threading.Barrier(2, timeout=30)

    class Meeting:
        def answer(self, requests: Sequence[ClientRequest], shared: object) -> list[ClientReply]:
            both.wait()
            return [ClientReply(one.message, one.state) for one in requests]

    assert len(list(ThreadExecutor(Meeting(), 2, 1).run(blocks(4, 1)))) == 4


@pytest.mark.parametrize("threads", [1, 2])
def test_each_thread_computes_with_the_threads_that_it_was_given(threads: int):
    assert set(sizes(ThreadExecutor(Threads(), 2, threads).run(blocks(4, 1))).values()) == {threads}


class Busy:
    """An app that answers for camera 0 alone, and never ends for others, whatever error it meets."""

    def __init__(self) -> None:
        self.begun, self.left = threading.Semaphore(0), 0

    def answer(self, requests: Sequence[ClientRequest], shared: object) -> list[ClientReply]:
        if requests[0].camera == 0:
            return [ClientReply(one.message, one.state) for one in requests]
        self.begun.release()
        try:
            while True:
                with suppress(Exception):
                    time.sleep(0.001)
        finally:
            self.left += 1


def test_what_threads_have_in_hand_when_a_run_is_left_is_stopped_and_the_next_run_goes_on(
    caplog: pytest.LogCaptureFixture,
):
    app = Busy()
    executor = ThreadExecutor(app, 2, 1)
    for run in range(1, 4):
        replies = executor.run(blocks(4, 1))
        assert len(next(replies)) == 1
        assert app.begun.acquire(timeout=30) and app.begun.acquire(timeout=30)
        replies.close()
        assert app.left == 2 * run  # those that cameras 1 and 2 were with have left the app
    assert len(list(executor.run(blocks(1, 1)))) == 1 and not caplog.records
    executor.close()


def test_here_ctrl_c_passes_through_at_once():
    class Pressed:
        def answer(self, requests: object, shared: object) -> list[ClientReply]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(SerialExecutor(Pressed()).run(blocks(2, 1)))


def test_one_process_needs_no_ray():
    modules = "fed_lorac.grid.executor, fed_lorac.experiment.doctor, fed_lorac.grid.examination"
    code = f"import sys, {modules}; print('ray' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
