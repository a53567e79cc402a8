"""The rounds of a run over any Flower Grid: asks, waits, writes the ledger. Knows strategies and rows; not tensors."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fed_lorac.data.progress import at
from fed_lorac.errors import RunError, kind_of, last_line
from fed_lorac.fleet.fleet import Camera, Fleet, Weather
from fed_lorac.fleet.links import Clock, air_time_s, downlink_time_s, elapsed_s, link
from fed_lorac.records.columns import GUESSING_CAMERA_COLUMNS
from fed_lorac.records.ledger import Ledger, Row
from fed_lorac.records.measured import Measured
from fed_lorac.reporting.watch import Watch
from fed_lorac.server.fleet_strategy import FleetStrategy
from fed_lorac.server.replies import Reply, RoundReport
from fed_lorac.wire.billing import MessageSize, Reference, round_columns
from fed_lorac.wire.refusals import DROPPED_OUT

__all__ = [
    "check_anyone_trained",
    "judge_by_clock",
    "measure_base",
    "measured_base",
    "roll_call",
    "run_round",
    "write_rows",
]

NO_FAULTS = (DROPPED_OUT, "no reply", "late")
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
            f"A run needs a camera that trains; in {len(rows)} rounds none did. {_commonest(reasons)} Mend the cause, "
            "and start the run again; all reasons are counted in rounds.jsonl."
        )


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
    strategy.aggregate_train(number, _watched(grid.send_and_receive(asked, timeout=timeout), watch))
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
    trip = clock.trip(reply.camera, asked.message_bytes, reply.size.message_bytes)
    if not trip.late:
        return reply
    size = reply.size if trip.sent else MessageSize()
    return replace(reply, counted=False, reason="late" if reply.counted else reply.reason, size=size)


def write_rows(
    ledger: Ledger,
    report: RoundReport,
    fleet: Fleet,
    full: Reference,
    measured: Measured,
    seconds: float,
    *,
    source: Measured | None = None,
    zero_byte: Measured | None = None,
    clock: Clock | None = None,
) -> Row:
    """Append every camera's part in the round, and the round, to the ledger; return the round's row.

    `source` and `zero_byte` are the base's scores in this round's weather, where they were measured; `clock` ends its
    round.
    """
    left_out = [reply for reply in report.replies if not reply.counted]
    billed = [reply.size for reply in report.replies if reply.counted or reply.size.message_bytes]
    by_camera = {reply.camera: reply for reply in report.replies}
    for camera in fleet.cameras:
        weather, arms = fleet.weather(camera.id, report.round), (measured, source, zero_byte)
        _write_camera(ledger, report, camera, by_camera.get(camera.id), weather, clock, _scores(camera.id, *arms))
    heard = {camera: size.message_bytes for camera, size in report.down.items()}
    counted = [reply.camera for reply in report.replies if reply.counted]
    return ledger.round(
        round=report.round,
        cameras_counted=len(report.replies) - len(left_out),
        cameras_left_out=len(left_out),
        skipped=report.skipped,
        reasons=Counter(reply.reason for reply in left_out),
        cameras_measured=len(measured.weather),
        accuracy=measured.mean(),
        accuracy_clean=measured.mean_clean(),
        accuracy_source=source and source.mean(),
        accuracy_zero_byte=zero_byte and zero_byte.mean(),
        **round_columns(billed, report.down.values(), full, asked=len(report.replies), caught_up=report.caught_up),
        aggregation_error=report.aggregation_error,
        round_time_s=clock and clock.end(counted, heard),
        seconds=seconds,
        **(_guesses_in_round(report) if ledger.guesses else {}),
        **(_chosen_in_round(report) if ledger.chooses else {}),
    )


def _chosen_in_round(report: RoundReport) -> dict[str, object]:
    return {"layers_chosen": ", ".join(report.layers), "needed_payload_bytes": report.needed_bytes}


def _guesses_in_round(report: RoundReport) -> dict[str, object]:
    """What was seen of all cameras that learnt, whether their replies count or not."""
    seen = [reply.observed for reply in report.replies if reply.observed]
    online = [found["online_accuracy"] for found in seen if "online_accuracy" in found]
    return {
        "labels_used": sum(int(found.get("labels_used", 0)) for found in seen),
        "online_accuracy": fmean(online) if online else None,
        "cameras_collapsed": sum(bool(found.get("collapsed")) for found in seen),
    }


def _write_camera(
    ledger: Ledger,
    report: RoundReport,
    camera: Camera,
    reply: Reply | None,
    weather: Weather,
    clock: Clock | None,
    scores: Mapping[str, float | None],
) -> None:
    sent, over = reply or Reply(camera.id, reason=""), link(camera.link)
    down, trip = report.down.get(camera.id, MessageSize()), clock and clock.trips.get(camera.id)
    status = "idle" if reply is None else "counted" if reply.counted else "left out"
    ledger.camera(
        round=report.round,
        camera=camera.id,
        corruption=weather.corruption,
        severity=weather.severity,
        link=camera.link,
        status=status,
        reason=sent.reason,
        num_examples=sent.num_examples,
        train_loss=sent.train_loss,
        **sent.size.columns("uplink"),
        **down.columns("downlink"),
        air_time_s=air_time_s(sent.size.message_bytes, over),
        downlink_time_s=downlink_time_s(down.message_bytes, over),
        elapsed_s=elapsed_s(sent.size.message_bytes, over),
        compute_s=trip and trip.compute_s,
        reply_s=trip and trip.reply_s,
        **scores,
        **(_guesses_of(sent.observed) if ledger.guesses else {}),
    )


def _scores(
    camera: int, adapted: Measured, source: Measured | None, zero_byte: Measured | None
) -> dict[str, float | None]:
    """What one camera was measured at, where it was."""
    return {
        "accuracy": adapted.weather.get(camera),
        "accuracy_clean": adapted.clean.get(camera),
        "accuracy_source": source.weather.get(camera) if source else None,
        "accuracy_zero_byte": zero_byte.weather.get(camera) if zero_byte else None,
    }


def _guesses_of(observed: Mapping[str, float]) -> dict[str, object]:
    """What was seen of one camera."""
    found: dict[str, object] = {name: observed.get(name) for name in GUESSING_CAMERA_COLUMNS}
    return found | {"labels_used": int(observed.get("labels_used", 0)), "collapsed": bool(found["collapsed"])}


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
