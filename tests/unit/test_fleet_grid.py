"""Laws of the fleet's grid in this process: who answers, what survives, what is late."""

import logging
import time
from collections.abc import Generator, Iterable, Iterator

import pytest
from flwr.app import ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from fed_lorac.client.request import ClientReply, ClientRequest
from fed_lorac.errors import RunError
from fed_lorac.grid.executor import Block
from fed_lorac.grid.fleet_grid import FleetGrid
from fed_lorac.grid.in_process import in_process
from fed_lorac.runtime.flower_private import record_bytes, record_of, task_identity


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with task_identity():
        yield


def counting() -> ClientApp:
    """Each node counts its messages in its state, sleeps as long as it is told, and raises if it is told to."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        told = message.content.config_records["config"]
        seen = context.state.setdefault("seen", MetricRecord({"n": 0}))
        assert isinstance(seen, MetricRecord)
        seen["n"] = int(seen["n"]) + 1  # type: ignore[arg-type]
        time.sleep(float(told.get("sleep", 0.0)))  # type: ignore[arg-type]
        if told.get("raise") == context.node_config["partition-id"]:
            context.state["half"] = ConfigRecord({"done": True})
            told["raise"] = -1  # its own copy: the next node is none the wiser
            raise ValueError("boom")
        answer = MetricRecord({"n": seen["n"], "camera": int(context.node_config["partition-id"])})
        return Message(RecordDict({"metrics": answer}), reply_to=message)

    return app


def asked(grid: FleetGrid, **config: int | float) -> list[Message]:
    content = RecordDict({"config": ConfigRecord(dict(config))})
    return [Message(content, dst_node_id=node, message_type=MessageType.TRAIN) for node in grid.get_node_ids()]


def numbers(replies: list[Message]) -> list[tuple[int, int]]:
    return [tuple(reply.content.metric_records["metrics"][key] for key in ("camera", "n")) for reply in replies]  # type: ignore[misc]


def test_nodes_answer_in_order_and_remember():
    grid = in_process(counting(), 3)
    for turn in (1, 2):
        replies = list(grid.send_and_receive(asked(grid)))
        assert numbers(replies) == [(0, turn), (1, turn), (2, turn)]
        assert [reply.metadata.src_node_id for reply in replies] == list(grid.get_node_ids())
        assert {reply.metadata.dst_node_id for reply in replies} == {1}


def test_two_grids_are_the_same():
    runs = []
    for _ in range(2):
        grid = in_process(counting(), 3)
        replies = [reply for _ in range(3) for reply in grid.send_and_receive(asked(grid))]
        runs.append([(r.metadata.src_node_id, r.metadata.reply_to_message_id, dict(r.content)) for r in replies])
    assert runs[0] == runs[1]


def test_a_node_that_raises_says_so_and_keeps_its_state(caplog: pytest.LogCaptureFixture):
    grid = in_process(counting(), 3)
    list(grid.send_and_receive(asked(grid)))
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            replies = list(grid.send_and_receive(asked(grid, **{"raise": 1})))
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert replies[1].error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert replies[1].error.reason == "ValueError: boom"
    assert list(grid.states[1001]) == ["seen"]
    assert numbers(list(grid.send_and_receive(asked(grid)))) == [(0, 4), (1, 2), (2, 4)]
    assert caplog.text.count("Traceback") == 1 and "boom" in caplog.text


def test_a_node_cannot_alter_what_the_next_one_is_sent():
    grid = in_process(counting(), 2)
    messages = asked(grid, **{"raise": 0})
    list(grid.send_and_receive(messages))
    assert messages[1].content.config_records["config"]["raise"] == 0


def test_replies_after_the_timeout_are_lost():
    grid = in_process(counting(), 3)
    assert list(grid.send_and_receive(asked(grid, sleep=0.05), timeout=0.01)) == []
    assert len(list(grid.send_and_receive(asked(grid), timeout=60))) == 3
    assert numbers(list(grid.send_and_receive(asked(grid)))) == [(0, 2), (1, 2), (2, 2)]


def test_no_node_begins_after_the_timeout():
    grid = in_process(counting(), 2)
    replies = grid.send_and_receive(asked(grid), timeout=0.5)
    next(iter(replies))
    time.sleep(0.6)
    assert list(replies) == [] and 1001 not in grid.states


def test_pushed_messages_are_pulled_once_by_their_ids():
    grid = in_process(counting(), 3)
    first, second = list(grid.push_messages(asked(grid))), list(grid.push_messages(asked(grid)))
    assert len({*first, *second}) == 6
    assert numbers(list(grid.pull_messages(second[1:]))) == [(1, 2), (2, 2)]
    third = list(grid.push_messages(asked(grid)))
    replies = list(grid.pull_messages([*first, *second, *third, "no such id"]))
    assert [reply.metadata.reply_to_message_id for reply in replies] == [*first, second[0], *third]
    assert list(grid.pull_messages([*first, *second, *third])) == []


def test_a_node_that_is_not_there_is_unavailable():
    grid = in_process(counting(), 1)
    [reply] = grid.send_and_receive([Message(RecordDict(), dst_node_id=7, message_type=MessageType.TRAIN)])
    assert reply.error.code == ErrorCode.NODE_UNAVAILABLE and reply.metadata.src_node_id == 7


def test_nodes_know_their_number_and_the_runs_config():
    app, told = ClientApp(), []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        told.append((context.node_config, context.run_config))
        return Message(RecordDict(), reply_to=message)

    grid = in_process(app, 2, {"lr": 0.1})
    list(grid.send_and_receive(asked(grid)))
    assert told == [({"partition-id": k, "num-partitions": 2}, {"lr": 0.1}) for k in range(2)]
    assert grid.create_message(RecordDict(), MessageType.TRAIN, 1000, "3").metadata.group_id == "3"
    assert grid.run.run_id == 1


class Blocks:
    """An executor that notes the blocks it is given and answers each node with its camera's number."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []

    def run(self, blocks: Iterable[Block]) -> Generator[list[ClientReply], None, None]:
        for block in blocks:
            self.blocks.append(block)
            yield [self._answer(request) for request in block.requests]

    def _answer(self, request: ClientRequest) -> ClientReply:
        state = RecordDict({"seen": MetricRecord({"camera": request.camera})})
        return ClientReply(Message(RecordDict(), reply_to=request.message), state)

    def close(self) -> None:
        pass


def test_blocks_are_consecutive_messages_and_share_one_built_app():
    executor, made = Blocks(), []

    def shared(messages: list[Message]) -> object:
        made.append(object())
        return made[-1]

    grid = FleetGrid(executor, 7, block_size=3, shared=shared)
    order = [6, 0, 5, 1, 4, 2, 3]
    messages = [Message(RecordDict(), dst_node_id=1000 + k, message_type=MessageType.TRAIN) for k in order]
    replies = [reply.metadata.src_node_id - 1000 for reply in grid.send_and_receive(messages)]
    assert replies == order
    assert [[request.camera for request in block.requests] for block in executor.blocks] == [[6, 0, 5], [1, 4, 2], [3]]
    assert len(made) == 1 and all(block.shared is made[0] for block in executor.blocks)
    assert [grid.states[1000 + k].metric_records["seen"]["camera"] for k in range(7)] == list(range(7))


def test_blocks_are_handed_out_as_replies_are_taken():
    executor = Blocks()
    grid = FleetGrid(executor, 100, block_size=2)
    replies = grid.send_and_receive(asked(grid))
    for _ in range(5):
        next(replies)
    assert len(executor.blocks) == 3


def test_what_nodes_remember_can_be_put_into_another_grid():
    first, second = in_process(counting(), 3), in_process(counting(), 3)
    list(first.send_and_receive(asked(first)))
    second.restore({node: record_of(record_bytes(state)) for node, state in first.states.items()})
    assert numbers(list(second.send_and_receive(asked(second)))) == [(0, 2), (1, 2), (2, 2)]


def test_two_messages_to_one_node_are_refused():
    grid = in_process(counting, 2)
    with pytest.raises(RunError, match="answers one message at a time; 2 of these are for node 1000"):
        list(grid.send_and_receive([*asked(grid), asked(grid)[0]]))
    assert not grid.states
