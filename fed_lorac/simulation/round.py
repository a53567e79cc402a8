"""The rounds of a run over any Flower Grid: asks, waits, measures. Knows strategies and messages; not tensors."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fed_lorac.data.progress import at
from fed_lorac.errors import RunError, kind_of, last_line
from fed_lorac.fleet.clock import Clock
from fed_lorac.records.ledger import Row
from fed_lorac.records.measured import Measured
from fed_lorac.reporting.watch import Watch
from fed_lorac.server.fleet_strategy import FleetStrategy
from fed_lorac.server.own_strategy import fault_of
from fed_lorac.server.replies import Reply
from fed_lorac.wire.billing import MessageSize
from fed_lorac.wire.refusals import DROPPED_OUT, LOST, NOT_ASKED

__all__ = [
    "check_anyone_trained",
    "judge_by_clock",
    "measure_base",
    "measured_base",
    "roll_call",
    "run_round",
]

NO_FAULTS = (DROPPED_OUT, LOST, NOT_ASKED, "no reply", "late")
"""Reasons why a reply does not count that a fleet's radio explains."""

_REGISTRATION_S = 30.0
_ROLL_CALL_S = 600.0  # the first message to a worker waits until it has started and imported PyTorch


def roll_call(grid: Grid, cameras: int) -> dict[int, int]:
    """Node id -> camera, once every camera has registered.

    Raises:
        RunError: too few nodes, and no new one in half a minute; or a camera without an answer in ten minutes.
    """
    at("calling the cameras")
    ask = [
        Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY) for node in _registered(grid, cameras)
    ]
    roster, errors = {}, ["none"]
    for reply in grid.send_and_receive(ask, timeout=_ROLL_CALL_S):
        if reply.has_content():
            roster[reply.metadata.src_node_id] = int(reply.content.metric_records["metrics"]["camera"])  # type: ignore[arg-type]
        else:
            errors.append(last_line(reply.error.reason))
    roster = {node: camera for node, camera in roster.items() if camera < cameras}
    if sorted(roster.values()) != list(range(cameras)):
        missing = sorted(set(range(cameras)) - set(roster.values()))
        raise RunError(
            f"Every camera answers the roll call in {_ROLL_CALL_S:g} s; missing: {missing[:5]}, "
            f"last error: {errors[-1]}. See the workers' log for why."
        )
    return roster


def _registered(grid: Grid, cameras: int) -> list[int]:
    """All nodes, ascending, as soon as there is one for each camera."""
    nodes, deadline = sorted(grid.get_node_ids()), time.monotonic() + _REGISTRATION_S
    while len(nodes) < cameras:
        if time.monotonic() > deadline:
            raise RunError(
                f"A run needs a node for each of its {cameras} cameras; {len(nodes)} registered. "
                f'Set num-supernodes={cameras} (flwr run . --federation-config "num-supernodes={cameras}") '
                "or fleet.cameras."
            )
        time.sleep(0.1)
        before, nodes = nodes, sorted(grid.get_node_ids())
        if nodes != before:
            deadline = time.monotonic() + _REGISTRATION_S
    return nodes


def measure_base(grid: Grid, strategy: FleetStrategy, watch: Watch, timeout: float) -> tuple[Measured, Measured]:
    """The base as it comes (source) and under each camera's own statistics (zero-byte), before the first round.

    Raises:
        RunError: no camera could be measured.
    """
    messages = list(strategy.configure_evaluate(0, ArrayRecord(), ConfigRecord({"baseline": True}), grid))
    watch.phase("base", len(messages))
    errors: list[str] = []
    replies = _watched(grid.send_and_receive(messages, timeout=timeout), watch, errors)
    strategy.aggregate_evaluate(0, replies)
    if errors and not strategy.evaluations:
        raise RunError(
            f"A run measures its base on the cameras' images first; all {len(messages)} cameras failed. "
            f"{_commonest(Counter(errors))}"
        )
    return measured_base(strategy)


def check_anyone_trained(rows: Sequence[Row]) -> None:
    """Raise `RunError` where no camera counted in any round and faults are among the reasons: the global model is then
    the base still, and its accuracies would pass for the method's. Radio losses and late replies are no faults."""
    if not rows or any(row["cameras_counted"] for row in rows):
        return
    reasons: Counter[str] = Counter()
    for row in rows:
        reasons.update({reason: count for reason, count in row["reasons"].items() if reason not in NO_FAULTS})
    if reasons:
        raise RunError(
            f"A run needs a camera that trains; in {len(rows)} rounds none did. {_commonest(reasons)} Fix the cause, "
            "and start the run again; all reasons are counted in rounds.jsonl."
        )


def check_not_misset(row: Row) -> None:
    """Raise `RunError` where every camera of a round failed by a setting, or by a part of one's own that breaks its
    contract: the next round would go as this one."""
    if not row["cameras_counted"] and row["reasons"] and all("ConfigError" in reason for reason in row["reasons"]):
        check_anyone_trained([row])


def _commonest(reasons: Mapping[str, int]) -> str:
    """The commonest kind of reason, by its first example, as a sentence; the first of its kind was logged in full."""
    kinds: Counter[str] = Counter()
    for reason, count in reasons.items():
        kinds[kind_of(reason)] += count
    kind, count = kinds.most_common(1)[0]
    example = next(reason for reason in reasons if kind_of(reason) == kind)
    return f"The commonest reason ({count} of {kinds.total()}): {example.rstrip('.')}."


def measured_base(strategy: FleetStrategy) -> tuple[Measured, Measured]:
    """What cameras last said of the base: as it comes (source), and under their own statistics (zero-byte)."""
    return _measured(strategy, "source"), _measured(strategy, "zero-byte")


def run_round(
    grid: Grid,
    strategy: FleetStrategy,
    number: int,
    *,
    measure: bool,
    last: bool,
    timeout: float,
    watch: Watch,
) -> tuple[Measured, float]:
    """One round: train, average, hand the update to everyone and, where asked, measure. Returns that and seconds."""
    began = time.perf_counter()
    nothing = ArrayRecord()
    asked = list(strategy.configure_train(number, nothing, ConfigRecord(), grid))
    watch.phase("train", len(asked))
    try:
        strategy.aggregate_train(number, _watched(grid.send_and_receive(asked, timeout=timeout), watch))
    except Exception as error:
        if (fault := fault_of(strategy, number, error)) is error:
            raise
        raise fault from error
    config = ConfigRecord({"measure": measure, "statistics": last})
    told = list(strategy.configure_evaluate(number, nothing, config, grid))
    watch.phase("evaluate", len(told))
    strategy.aggregate_evaluate(number, _watched(grid.send_and_receive(told, timeout=timeout), watch))
    return _measured(strategy, "adapted"), time.perf_counter() - began


def judge_by_clock(clock: Clock, reply: Reply, asked: MessageSize) -> Reply:
    """A reply as it counts: left out where it is late, and not billed where it was never sent."""
    if reply.counted and not reply.size.message_bytes:
        clock.trip(reply.camera, 0, 0)  # training that nothing is sent of takes its time too
    if not reply.size.message_bytes:
        return reply  # nothing came
    trip = clock.trip(reply.camera, asked.frame_bytes, reply.size.frame_bytes)
    if not trip.late:
        return reply
    size = reply.size if trip.sent else MessageSize()
    return replace(reply, counted=False, reason="late" if reply.counted else reply.reason, size=size)


def _watched(replies: Iterable[Message], watch: Watch, errors: list[str] | None = None) -> Iterator[Message]:
    """The replies, each reported to the watch; failures are counted in `errors`, by reason."""
    for reply in replies:
        watch.reply()
        if errors is not None and not reply.has_content():
            errors.append(str(reply.error.reason))
        yield reply


def _measured(strategy: FleetStrategy, name: str) -> Measured:
    result = Measured()
    for camera, content in sorted(strategy.evaluations.items()):
        metrics = content.metric_records["metrics"]
        for key, where in ((f"{name}-accuracy", result.weather), (f"{name}-accuracy-clean", result.clean)):
            if key in metrics:
                where[camera] = float(metrics[key])  # type: ignore[arg-type]
    return result
