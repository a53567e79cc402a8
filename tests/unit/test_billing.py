"""Laws of weight: measured on the message itself, and the same every time."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fed_lorac.errors import FrameError
from fed_lorac.runtime.flower_private import SERVER_NODE_ID, fixed_message, task_identity
from fed_lorac.wire.billing import (
    FRAME_KEY,
    FullMessages,
    MessageSize,
    Reference,
    Told,
    frame_record,
    full_message,
    message_bytes,
    message_size,
    read_frame,
)
from fed_lorac.wire.frame import decode, encode, payload_bytes


def metrics() -> MetricRecord:
    return MetricRecord({"num-examples": 500, "train-loss": 0.25})


def content(frame: bytes) -> RecordDict:
    return RecordDict({"arrays": frame_record(frame), "metrics": metrics()})


# Flower's private corner


def test_an_identity_lets_messages_be_made_and_leaves_no_trace() -> None:
    before = vars(TaskIdentity).copy()
    with task_identity(run_id=7, node_id=8, task_id=9):
        message = Message(RecordDict(), 5, "train")
        assert (message.metadata.run_id, message.metadata.src_node_id, message.metadata.src_task_id) == (7, 8, 9)
    assert {k: vars(TaskIdentity)[k] for k in before} == before


def test_an_identity_is_restored_after_an_error_and_to_an_outer_one() -> None:
    with task_identity(run_id=1):
        with pytest.raises(KeyError), task_identity(run_id=2):
            raise KeyError
        assert TaskIdentity.run_id == 1


def test_a_message_is_weighed_without_any_identity() -> None:
    assert TaskIdentity._task_id is None
    assert message_bytes(content(b"x")) > 0
    assert TaskIdentity._task_id is None


def test_the_server_is_flower_s_own_node() -> None:
    from flwr.common.constant import SUPERLINK_NODE_ID

    assert SERVER_NODE_ID == SUPERLINK_NODE_ID


@pytest.mark.parametrize("reply", [True, False])
def test_the_fixed_ids_weigh_what_a_deployment_s_ids_weigh(reply: bool) -> None:
    """Route two: Flower's own constructors under random ids of the deployed width."""
    rng = np.random.default_rng(0)
    run, task, node = (int(n) for n in rng.integers(2**63, 2**64, 3, dtype=np.uint64))
    with task_identity(run_id=run, task_id=task):
        message = Message(content(b"frame" * 99), node, "train")
        message.metadata.__dict__["_message_id"] = rng.bytes(32).hex()
        if reply:
            message = Message(content(b"frame" * 99), reply_to=message)
            message.metadata.__dict__["_message_id"] = rng.bytes(32).hex()
    assert message_bytes(content(b"frame" * 99), reply=reply) == message_to_proto(message).ByteSize()


# The envelope


@given(st.binary(max_size=300))
def test_a_frame_comes_out_of_its_record_as_it_went_in(frame: bytes) -> None:
    assert read_frame(frame_record(frame)) == frame


def test_a_frame_survives_protobuf() -> None:
    frame = encode({"x": torch.ones(3)}, dtype="fp16", base="b")
    wire = message_to_proto(fixed_message(content(frame), "train", reply=True)).SerializeToString()
    proto = type(message_to_proto(fixed_message(RecordDict(), "train", reply=True))).FromString(wire)
    assert len(wire) == message_bytes(content(frame), reply=True)
    assert decode(read_frame(message_from_proto(proto).content["arrays"]), base="b")["x"].tolist() == [1, 1, 1]  # type: ignore[arg-type]


def forged(header: str, data: bytes = b"1234") -> Array:
    text = header.encode().ljust(118) + b"\n"
    return Array("uint8", (4,), "numpy.ndarray", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data)


@pytest.mark.parametrize(
    "record",
    [
        ArrayRecord(),
        ArrayRecord({"other": Array(np.zeros(4, np.uint8))}),
        ArrayRecord({FRAME_KEY: Array(np.zeros(4, np.uint8)), "more": Array(np.zeros(4, np.uint8))}),
        ArrayRecord({FRAME_KEY: Array(np.zeros(4, np.float32))}),
        ArrayRecord({FRAME_KEY: Array(np.zeros((2, 2), np.uint8))}),
        ArrayRecord({FRAME_KEY: Array("uint8", (4,), "numpy.ndarray", b"")}),
        ArrayRecord({FRAME_KEY: Array("uint8", (4,), "numpy.ndarray", b"\x93NUMPY\x03\x00")}),
        ArrayRecord({FRAME_KEY: forged("{'descr': '|u1', 'fortran_order': False, 'shape': (999999999999,), }")}),
        ArrayRecord({FRAME_KEY: forged("{'descr': '|O', 'fortran_order': False, 'shape': (4,), }")}),
        ArrayRecord({FRAME_KEY: forged("__import__('os')")}),
        ArrayRecord({FRAME_KEY: forged("{'descr': (((")}),
    ],
)
def test_another_envelope_is_refused_before_anything_is_allocated(record: ArrayRecord) -> None:
    with pytest.raises(FrameError, match="one flat uint8 array"):
        read_frame(record)


@given(st.binary(max_size=200))
def test_any_bytes_as_an_envelope_give_a_frame_or_a_frame_error(data: bytes) -> None:
    for start in (b"", b"\x93NUMPY\x01\x00"):
        with suppress(FrameError):
            read_frame(ArrayRecord({FRAME_KEY: Array("uint8", (4,), "numpy.ndarray", start + data)}))


# Weights


def test_a_weight_grows_from_the_inside_out() -> None:
    state = {"fc.A": torch.randn(2, 5), "fc.B": torch.randn(5, 2)}
    frame = encode(state, dtype="bf16", base="b")
    weight = message_size(frame, payload_bytes(state, "bf16"), {"metrics": metrics()}, reply=True)
    assert weight.payload_bytes == 40
    assert weight.frame_bytes == len(frame)
    assert weight.message_bytes == message_bytes(content(frame), reply=True) > len(frame) + 128


def test_equal_messages_weigh_the_same_every_time() -> None:
    assert len({message_bytes(content(b"frame"), reply=True) for _ in range(20)}) == 1


@given(st.integers(0, 5_000), st.integers(1, 5_000))
def test_a_message_grows_with_its_frame_byte_by_byte_and_its_length_fields(small: int, more: int) -> None:
    grown = message_bytes(content(b"x" * (small + more))) - message_bytes(content(b"x" * small))
    assert more <= grown <= more + 10


def test_what_travels_beside_the_frame_is_weighed() -> None:
    bare, config = (
        message_size(b"f", 1),
        message_size(b"f", 1, {"config": ConfigRecord({"server-round": 3, "lr": 0.1})}),
    )
    assert config.message_bytes > bare.message_bytes
    assert config.frame_bytes == bare.frame_bytes


def test_one_array_beats_one_array_a_tensor_by_its_headers() -> None:
    arrays = [np.zeros(10, np.float32) for _ in range(40)]
    loose = message_bytes(RecordDict({"arrays": ArrayRecord(arrays)}))
    state = {str(n): torch.from_numpy(a) for n, a in enumerate(arrays)}
    packed = message_size(encode(state, dtype="fp32", base=""), 1_600).message_bytes
    assert loose - packed > 39 * 128


def test_weights_add_up_and_name_their_columns() -> None:
    assert MessageSize(1, 2, 3) + MessageSize(10, 20, 30) == MessageSize(11, 22, 33)
    assert sum([MessageSize(1, 2, 3)] * 2, MessageSize()) == MessageSize(2, 4, 6)
    assert MessageSize(1, 2, 3).columns("uplink") == {
        "uplink_payload_bytes": 1,
        "uplink_frame_bytes": 2,
        "uplink_message_bytes": 3,
    }


@pytest.mark.parametrize(("dtype", "size"), [("fp32", 4), ("fp16", 2)])
def test_the_full_message_carries_every_parameter(dtype: str, size: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 10))
    weight = full_message(dict(model.named_parameters()), dtype, {"metrics": metrics()}, reply=True)
    assert weight.payload_bytes == size * sum(p.numel() for p in model.parameters())
    assert weight.payload_bytes < weight.frame_bytes < weight.message_bytes < weight.payload_bytes + 700


def test_the_full_message_of_a_state_dict_with_counters_is_refused() -> None:
    with pytest.raises(FrameError, match="num_batches_tracked"):
        full_message(nn.BatchNorm2d(8).state_dict(), "fp32")


def test_full_fine_tuning_under_multicast_is_told_once_a_link() -> None:
    """Ten cameras on two links; nine lack the round's update and one lacks three."""
    up, down, ask, whole = (MessageSize(size, size + 1, size + 2) for size in (50, 100, 5, 1_000))
    full = FullMessages(up, down, ask, whole)
    columns = Reference(full, full).columns(asked=4, answered=3, told=Told({0: 4, 1: 9, 3: 1}, repeats=7))
    for name in ("full", "full_fp32"):
        assert columns[f"{name}_uplink_payload_bytes"] == 3 * 50
        assert columns[f"{name}_downlink_message_bytes"] == 4 * 7 + 9 * 102 + 3 * 102
        assert columns[f"{name}_multicast_downlink_message_bytes"] == 4 * 7 + 2 * 102 + 3 * 102
        assert columns[f"{name}_multicast_downlink_frame_bytes"] == 4 * 6 + 2 * 101 + 3 * 101
