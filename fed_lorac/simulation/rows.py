"""A round as rows of the ledger: every camera's part in it, and the round. Knows reports, clocks and
columns; not messages."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from fed_lorac.fleet.clock import Clock, Heard, Trip
from fed_lorac.fleet.fleet import Camera, Fleet
from fed_lorac.radio.link import Crossing, crossed
from fed_lorac.records.columns import GUESSING_CAMERA_COLUMNS
from fed_lorac.records.ledger import Ledger, Row
from fed_lorac.records.measured import Measured
from fed_lorac.server.audience import ToldAlike
from fed_lorac.server.replies import Reply, RoundReport
from fed_lorac.simulation.multicast import Multicast
from fed_lorac.wire.billing import FullMessages, MessageSize, Reference, Told, round_columns

__all__ = ["write_rows"]


@dataclass(frozen=True)
class _Taken:
    """What messages took of cameras' radios, all their bytes on the air, and training; and what full fine-tuning's in
    fp32 would have taken for as many replies and updates."""

    uplink_bytes_on_air: int = 0
    downlink_bytes_on_air: int = 0
    energy_radio_j: float = 0.0
    energy_compute_j: float = 0.0
    full_fp32_energy_radio_j: float = 0.0

    @classmethod
    def together(cls, alike: ToldAlike, fleet: Fleet, full: FullMessages, multicast: Multicast | None) -> "_Taken":
        """That of cameras that heard an update together."""
        sizes = (alike.size.frame_bytes, full.told(alike.updates).frame_bytes)
        own, of_full = (_heard_together(alike, fleet, size, multicast) for size in sizes)
        on_air = sum(len(cameras) * message.bytes_on_air for cameras, message in own)
        own_j, full_j = (sum(len(cameras) * message.energy_j for cameras, message in its) for its in (own, of_full))
        return cls(0, on_air, own_j, 0.0, full_j)

    @classmethod
    def by(
        cls,
        camera: Camera,
        fleet: Fleet,
        reply: Reply | None,
        report: RoundReport,
        trip: Trip | None,
        full: FullMessages,
        multicast: Multicast | None,
    ) -> "_Taken":
        """One camera's, in one round."""
        over, sent = fleet.links[camera.link], reply.size if reply else MessageSize()
        answered = reply is not None and (reply.counted or bool(sent.message_bytes))
        went, came = crossed(over, sent.frame_bytes, up=True), _came(camera, fleet, report, multicast)
        full_up = crossed(over, full.up.frame_bytes if answered else 0, up=True)
        full_down = (multicast and multicast.full_down(camera, full)) or crossed(
            over, full.told_each(report.updates_for[camera.id]).frame_bytes, up=False
        )
        return cls(
            went.bytes_on_air,
            came.bytes_on_air,
            went.energy_j + came.energy_j,
            trip.compute_s * fleet.compute_watt if trip else 0.0,
            full_up.energy_j + full_down.energy_j,
        )

    def of_camera(self) -> dict[str, float | None]:
        """The columns of a camera's row."""
        return {name: value for name, value in vars(self).items() if not name.startswith("full_")}

    def __add__(self, other: "_Taken") -> "_Taken":
        return _Taken(*(mine + its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))


def _came(camera: Camera, fleet: Fleet, report: RoundReport, multicast: Multicast | None, before: int = 0) -> Crossing:
    """All that a camera was sent in the round after so many bytes of it, as it crossed its link."""
    size = max(0, report.down.get(camera.id, MessageSize()).frame_bytes - before)
    return (multicast and multicast.down(camera, before)) or crossed(fleet.links[camera.link], size, up=False)


def _heard_together(alike: ToldAlike, fleet: Fleet, n_bytes: int, multicast: Multicast | None) -> list[Heard]:
    """How cameras hear an update of so many bytes that are told alike."""
    if multicast is not None and (found := multicast.together(alike, n_bytes)) is not None:
        return found
    return [(alike.cameras, crossed(fleet.links[alike.link], n_bytes, up=False))]


def _sent_at_the_end(
    fleet: Fleet, report: RoundReport, trips: Mapping[int, Trip], multicast: Multicast | None
) -> Iterator[Heard]:
    """All that is billed as sent down in the round, but for what cameras heard before they trained."""
    for camera in report.down:
        before = trips[camera].downlink_bytes if camera in trips else 0
        yield [camera], _came(fleet.cameras[camera], fleet, report, multicast, before)
    for alike in report.told:
        yield from _heard_together(alike, fleet, alike.size.frame_bytes, multicast)


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
    """Append every camera's part in the round, and the round, to the ledger; return the round's row. Cameras that heard
    together have no row of their own, and are in the sums of the round's.

    `source` and `zero_byte` are the base's scores in this round's weather, where they were measured; `clock` ends its
    round.

    Where an update goes down by multicast, the round's row has what was sent, and a camera's what it heard.
    """
    left_out = [reply for reply in report.replies if not reply.counted]
    billed = [reply.size for reply in report.replies if reply.counted or reply.size.message_bytes]
    by_camera = {reply.camera: reply for reply in report.replies}
    multicast = Multicast(report, fleet) if ledger.multicasts else None
    taken = sum((_Taken.together(alike, fleet, full.fp32, multicast) for alike in report.told), _Taken())
    listed = fleet.cameras if report.listed is None else [fleet.cameras[camera] for camera in report.listed]
    for camera in listed:
        scores, reply = _scores(camera.id, measured, source, zero_byte), by_camera.get(camera.id)
        its = _Taken.by(
            camera, fleet, reply, report, clock.trips.get(camera.id) if clock else None, full.fp32, multicast
        )
        came = _came(camera, fleet, report, multicast)
        _write_camera(ledger, report, fleet, camera, reply, clock, came, its.of_camera() | scores)
        taken += its
    counted = [reply.camera for reply in report.replies if reply.counted]
    sums = round_columns(
        billed,
        report.sent_down,
        full,
        asked=len(report.replies),
        told=Told(report.caught_up, report.repeats),
        repeated=report.repeated,
    )
    if multicast is not None:
        sums = multicast.columns(sums, full)
        taken = replace(taken, downlink_bytes_on_air=taken.downlink_bytes_on_air - multicast.repeated_on_air)
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
        **sums,
        aggregation_error=report.aggregation_error,
        round_time_s=clock and clock.end(counted, _sent_at_the_end(fleet, report, clock.trips, multicast)),
        **vars(taken),
        seconds=seconds,
        **(_guesses_in_round(report) if ledger.guesses else {}),
        **(_chosen_in_round(report) if ledger.chooses else {}),
        **({"updates_lost": report.updates_lost} if ledger.loses else {}),
        **({"cameras_told_together": sum(alike.count for alike in report.told)} if ledger.together else {}),
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
    fleet: Fleet,
    camera: Camera,
    reply: Reply | None,
    clock: Clock | None,
    came: Crossing,
    more: Mapping[str, float | None],
) -> None:
    sent = reply or Reply(camera.id, reason="away" if camera.id in fleet.away(report.round) else "")
    weather, over = fleet.weather(camera.id, report.round), fleet.links[camera.link]
    down, trip = report.down.get(camera.id, MessageSize()), clock and clock.trips.get(camera.id)
    went = crossed(over, sent.size.frame_bytes, up=True)
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
        uplink_air_time_s=went.transmit_s,
        downlink_time_s=came.takes_s,
        elapsed_s=went.busy_s,
        compute_s=trip and trip.compute_s,
        reply_s=trip and trip.reply_s,
        **more,
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
