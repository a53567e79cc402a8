"""Laws of judging replies: who is counted, who is left out and why, and what either is billed."""

import logging
import random
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
import torch
from cameras import BASE, SHAPES, TEMPLATE, answer, frame, reply, roster, state
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

from fed_lorac.aggregation.delta_sum import State
from fed_lorac.server.replies import Reply, ReplyCollector, mean_metrics
from fed_lorac.server.strategy import FrameSpec
from fed_lorac.wire.billing import MessageSize, frame_record, message_bytes
from fed_lorac.wire.frame import encode, inspect
from fed_lorac.wire.template import template_of
from fed_lorac.wire.updates import global_fingerprint

NOW = global_fingerprint(BASE, 3)
SPEC = FrameSpec(BASE, SHAPES, TEMPLATE)
GOOD = frame(1, 3)


def judged(messages: Iterable[Message], cameras: int, drawn: Iterable[int]) -> tuple[list[Reply], list[State]]:
    collector = ReplyCollector(roster(cameras), drawn, NOW, lambda camera: TEMPLATE, templates=SPEC.templates)
    states = [state for _, state, _ in collector.states(messages)]
    return list(collector.verdicts.values()), states


def verdicts(messages: list[Message], cameras: int = 3) -> list[Reply]:
    return judged(messages, cameras, range(cameras))[0]


def flipped(at: int, frame: bytes = GOOD) -> bytes:
    return frame[:at] + bytes([frame[at] ^ 0x10]) + frame[at + 1 :]


def with_nan() -> bytes:
    return resealed(np.float32(np.nan))


def resealed(value: np.float32) -> bytes:
    """A frame of a sender that does not look at its numbers: intact but for one value."""
    from frames import sealed

    return sealed(GOOD[: -4 - 4] + value.tobytes())


def less(name: str) -> bytes:
    return encode({k: t for k, t in state(1).items() if k != name}, dtype="fp32", base=NOW)


def records(**changes: ArrayRecord | MetricRecord) -> RecordDict:
    return RecordDict({**answer(GOOD), **changes})


REFUSED: dict[str, tuple[Callable[[], RecordDict], str]] = {
    "truncated": (lambda: answer(GOOD[:-9]), "truncated"),
    "cut to nothing": (lambda: answer(b""), "truncated"),
    "trailing": (lambda: answer(GOOD + b"\0"), "trailing bytes"),
    "bit-flipped header": (lambda: answer(flipped(8)), "damaged"),
    "bit-flipped values": (lambda: answer(flipped(len(GOOD) - 40)), "damaged"),
    "other version": (lambda: answer(flipped(4)), "other version"),
    "not a frame": (lambda: answer(b"hello, this is not a frame"), "not a frame"),
    "non-finite": (lambda: answer(with_nan()), "non-finite"),
    "beyond range": (lambda: answer(frame(1, 3, **{"fc.bias": torch.full((5,), 1e38)})), "the change of fc is"),
    "product beyond range": (
        lambda: answer(frame(1, 3, **{"conv.A": torch.full((2, 12), 1e20), "conv.B": torch.full((18, 2), 1e20)})),
        "the change of conv is beyond",
    ),
    "wrong shape": (
        lambda: answer(frame(1, 3, **{"fc.bias": torch.zeros(6)})),
        "wrong shape of fc.bias: (6,), not (5,)",
    ),
    "other rank": (lambda: answer(encode(state(1, 3), dtype="fp32", base=NOW)), "wrong shape of conv.A: (3, 12)"),
    "missing tensor": (lambda: answer(less("fc.weight")), "missing tensor fc.weight"),
    "half a pair": (lambda: answer(less("conv.B")), "missing tensor conv.B"),
    "extra tensor": (lambda: answer(frame(1, 3, more=torch.zeros(2))), "unknown tensor 'more'"),
    "stale": (lambda: answer(frame(1, 2)), "other base"),
    "stranger's base": (lambda: answer(encode(state(1), dtype="fp32", base="else@3")), "other base"),
    "no examples": (lambda: answer(GOOD, num_examples=0), "num-examples is not"),
    "negative examples": (lambda: answer(GOOD, num_examples=-5), "num-examples is not"),
    "fractional examples": (lambda: answer(GOOD, num_examples=1.5), "num-examples is not"),
    "examples unsaid": (lambda: records(metrics=MetricRecord({"loss": 1.0})), "num-examples is not"),
    "no arrays": (lambda: RecordDict({"metrics": MetricRecord({"num-examples": 1})}), "0 ArrayRecords instead of one"),
    "two arrays": (lambda: records(more=frame_record(GOOD)), "2 ArrayRecords instead of one"),
    "no metrics": (lambda: RecordDict({"arrays": frame_record(GOOD)}), "0 MetricRecords instead of one"),
    "two metrics": (lambda: records(more=MetricRecord({"num-examples": 1})), "2 MetricRecords instead of one"),
    "plain tensors": (lambda: records(arrays=ArrayRecord({"w": Array(np.zeros(3))})), "malformed envelope"),
    "nothing at all": (RecordDict, "0 ArrayRecords"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_reply_that_cannot_be_counted_is_left_out_with_its_reason_and_billed(case: str):
    make, reason = REFUSED[case]
    content = make()
    first, second, third = verdicts([reply(0, answer(GOOD)), reply(1, content), reply(2, answer(GOOD))])
    assert first.counted and third.counted and not second.counted
    assert second.reason.startswith(reason) and len(second.reason) < 120
    assert second.size.message_bytes == message_bytes(content, reply=True) > 0


@pytest.mark.parametrize(
    ("content", "frame_bytes", "payload_bytes"),
    [
        (answer(GOOD), len(GOOD), inspect(GOOD).payload_bytes),
        (answer(frame(1, 2)), len(GOOD), inspect(GOOD).payload_bytes),  # stale, but whole
        (answer(GOOD[:-9]), len(GOOD) - 9, 0),  # nobody can say what of it is payload
        (records(more=frame_record(GOOD)), 0, 0),
    ],
)
def test_a_refused_frame_is_billed_as_far_as_it_can_be_read(content: RecordDict, frame_bytes: int, payload_bytes: int):
    [found] = verdicts([reply(0, content)], 1)
    assert found.size == MessageSize(payload_bytes, frame_bytes, message_bytes(content, reply=True))


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "ValueError: boom", "raised: ValueError: boom"),
        (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "Traceback:\n  File x\nKeyError: 'y'\n", "raised: KeyError: 'y'"),
        (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "", "raised: no reason given"),
        (ErrorCode.CLIENT_APP_CRASHED, "worker died", "worker died"),
        (ErrorCode.NODE_UNAVAILABLE, "gone", "no reply"),
        (ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "expired", "no reply"),
        (ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "dropped out", "dropped out"),
    ],
)
def test_a_camera_that_raised_or_was_lost_is_left_out_and_sent_nothing(code: int, text: str, reason: str):
    [found] = verdicts([reply(0, error=Error(code, text))], 1)
    assert (found.counted, found.reason, found.size) == (False, reason, MessageSize())


def test_a_camera_that_says_nothing_in_time_is_left_out():
    assert [r.reason for r in verdicts([reply(1, answer(GOOD))])] == ["no reply", "", "no reply"]


def test_states_come_out_in_the_order_of_the_draw_whatever_order_replies_arrive_in():
    drawn = [4, 1, 5, 0, 3]  # 2 was not asked
    messages = [reply(camera, answer(frame(camera, 3))) for camera in (0, 1, 4, 5)] + [reply(3, answer(GOOD[:-1]))]
    expected, states = judged(messages, 6, drawn)
    assert [r.camera for r in expected] == drawn and [r.counted for r in expected] == [True] * 4 + [False]
    assert all(torch.equal(s["fc.bias"], state(k)["fc.bias"]) for s, k in zip(states, drawn, strict=False))
    for seed in range(10):
        random.Random(seed).shuffle(messages)
        again, others = judged(messages, 6, drawn)
        assert again == expected
        assert all(torch.equal(a[name], b[name]) for a, b in zip(states, others, strict=True) for name in a)


def test_a_state_is_handed_out_as_soon_as_those_drawn_before_it_have_come():
    taken = 0

    def arriving() -> Iterator[Message]:
        nonlocal taken
        for camera in (0, 2, 1, 3):
            taken += 1
            yield reply(camera, answer(frame(camera, 3)))

    states = ReplyCollector(roster(4), range(4), NOW, lambda camera: TEMPLATE, templates=SPEC.templates).states(
        arriving()
    )
    assert [taken for _ in states] == [1, 3, 3, 4]


def test_a_frame_without_names_counts_like_one_with_them():
    short = encode(state(1), dtype="fp32", base=NOW, templates=SPEC.templates)
    (named, states), (found, others) = (judged([reply(1, answer(one))], 3, [1]) for one in (GOOD, short))
    assert found[0].counted and found[0].size.payload_bytes == named[0].size.payload_bytes
    assert found[0].size.frame_bytes == len(short) == named[0].size.payload_bytes + 19 < len(GOOD)
    assert all(torch.equal(states[0][name], others[0][name]) for name in TEMPLATE)


def test_a_frame_of_a_template_that_nobody_agreed_on_is_refused():
    other = template_of({"conv.weight": (1, 2)})
    short = encode({"conv.weight": torch.ones(1, 2)}, dtype="fp32", base=NOW, templates=[other])
    [verdict] = judged([reply(1, answer(short))], 3, [1])[0]
    assert (verdict.counted, verdict.reason) == (False, "other template")
    assert verdict.size.payload_bytes == 8


def test_the_first_reply_counts_and_a_second_is_ignored_and_billed():
    for second, size in (
        (answer(GOOD), len(GOOD)),
        (answer(frame(2, 3)), len(GOOD)),
        (answer(GOOD[:-1]), len(GOOD) - 1),
    ):
        once, twice = verdicts([reply(0, answer(GOOD)), reply(1, answer(GOOD)), reply(1, second)], 2)
        assert once.counted and twice.counted and once.reason == ""
        assert twice.reason == "a second reply was ignored"
        assert twice.size.frame_bytes == once.size.frame_bytes + size


def test_a_good_reply_does_not_mend_a_refused_one():
    [found] = verdicts([reply(0, answer(GOOD[:-1])), reply(0, answer(GOOD))], 1)
    assert not found.counted and found.reason == "truncated" and found.size.frame_bytes == 2 * len(GOOD) - 1


def test_replies_of_those_who_were_not_asked_are_ignored_and_logged(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        found, _ = judged([reply(9, answer(GOOD)), reply(1, answer(GOOD))], 2, [0])
    assert [(r.camera, r.reason) for r in found] == [(0, "no reply")]
    assert "node 1009" in caplog.text and "camera 1" in caplog.text


def test_metrics_are_averaged_over_those_who_report_them():
    rows = [{"num-examples": 10, "a": 1.0, "folded-round": 2}, {"num-examples": 30, "a": 2.0, "b": 5.0}]
    rows += [{"num-examples": 0, "a": 9.0}, {"a": 9.0}, {"num-examples": 4, "a": float("nan")}]
    found = mean_metrics(RecordDict({"metrics": MetricRecord(row)}) for row in rows)
    assert found is not None and dict(found) == {"a": 1.75, "b": 5.0}
    assert mean_metrics([]) is None and mean_metrics([RecordDict()]) is None


def test_a_number_of_examples_that_no_sum_can_carry_leaves_its_reply_out():
    big = {name: tensor * 2.0**80 if name == "conv.B" else tensor for name, tensor in state(1).items()}
    sent = encode(big, dtype="fp32", base=NOW)
    many, few = (verdicts([reply(0, answer(sent, num_examples=count))], 1)[0] for count in (2**50, 2**4))
    assert few.counted and not many.counted
    assert many.reason == "the change of conv, num-examples times, is beyond 2^110"
