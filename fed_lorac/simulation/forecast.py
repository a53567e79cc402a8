"""What a run will send, before anything is run: sizes of frames follow from shapes. Knows experiments, strategies and
sizes; not rounds or ledgers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from fed_lorac.client.agreement import frame_spec, uplink_template
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.fleet.fleet import Fleet
from fed_lorac.reporting.to_come import BytesToCome
from fed_lorac.simulation.build_strategy import reference_of
from fed_lorac.simulation.waste import OwnFrame, first_frames
from fed_lorac.wire.billing import weighed_frame

__all__ = ["bytes_to_come", "first_round", "reply_bytes"]


def bytes_to_come(experiment: Experiment) -> BytesToCome | None:
    """What the run of an experiment will send; None where a first round settles its layers or bases, by what is
    seen there.

    A reply is built of drawn numbers and measured, and so is the update of the first round's cameras, with what
    cameras have beside it; where payloads are entropy-coded a run sends less, and where a cluster has nobody in a
    round. Cameras are drawn at random, so a round's uplink is that of so many mean cameras.
    """
    if experiment.plan.settles:
        return None
    fleet, rounds, reference = experiment.fleet, experiment.plan.rounds, reference_of(experiment)
    cameras, asked = len(fleet.cameras), fleet.per_round
    sends = experiment.plan.sends
    of_places = [reply_bytes(experiment, place) for place in range(len(experiment.adapters))] if sends else []
    replies = tuple(of_places[experiment.place(camera)] if sends else 0 for camera in range(cameras))
    first, own = first_frames(experiment, first_round(fleet)) if sends else (None, {})
    update = 0 if first is None else len(first.frame)
    full, full_fp32 = (
        asked * one.up.frame_bytes + _sent(fleet, one.down.frame_bytes)
        for one in (reference.same_codec, reference.fp32)
    )
    return BytesToCome(
        replies=replies,
        update=update,
        uplink=round(rounds * asked * sum(replies) / cameras),
        downlink=round(rounds * (_sent_with(fleet, update, own) if own else _sent(fleet, update))),
        full=round(rounds * full),
        full_fp32=round(rounds * full_fp32),
        own=max((size for _, size in own.values()), default=0),
        sent_to=_to_whom(experiment.config.fleet.downlink),
    )


def first_round(fleet: Fleet) -> tuple[int, ...]:
    """Round 1's cameras, were all of them there: as many states as an update is made of when nothing fails."""
    return replace(fleet, availability=1.0).drawn(1)


def _sent(fleet: Fleet, n_bytes: int, cameras: Sequence[int] | None = None) -> float:
    """Bytes of an update to these cameras, by default all: a copy to each, or by multicast once and to those that ask
    again, as many as they are in the mean."""
    places = fleet.link_places if cameras is None else fleet.link_places[list(cameras)]
    counts = np.bincount(places, minlength=len(fleet.links))
    copies = sum(
        1 + count * link.repaired(n_bytes) if link.multicasts and count else float(count)
        for link, count in zip(fleet.links.values(), counts, strict=True)
    )
    return float(copies) * n_bytes


def _sent_with(fleet: Fleet, update: int, own: Mapping[int, OwnFrame]) -> float:
    """The same of an update that each camera is sent with its own part, or its cluster's: those of one part hear it
    together. Who has none after the first round is taken to get one as large as the largest."""
    most = max(size for _, size in own.values())
    alike: dict[OwnFrame, list[int]] = defaultdict(list)
    for camera in range(len(fleet.cameras)):
        alike[own.get(camera, (None, most))].append(camera)
    return sum(_sent(fleet, update + size, cameras) for (_, size), cameras in alike.items())


def _to_whom(downlink: str) -> str:
    return "to every camera" if downlink == "unicast" else f"to all cameras ({downlink})"


def reply_bytes(experiment: Experiment, place: int) -> int:
    """The frame of a reply of a camera whose adapter has this place, were it not entropy-coded."""
    uplink = experiment.plan.uplink
    like = {name: torch.empty(shape, device="meta") for name, shape in uplink_template(experiment, place).items()}
    known = frame_spec(experiment).templates
    return len(weighed_frame(like, uplink.codec, topk_share=uplink.topk_share, templates=known))
