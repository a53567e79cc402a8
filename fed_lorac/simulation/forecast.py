"""What a run will send, before anything is run: sizes of frames follow from shapes. Knows experiments, strategies and
sizes; not rounds or ledgers."""

from dataclasses import replace

import numpy as np
import torch

from fed_lorac.client.agreement import frame_spec, uplink_template
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.fleet.fleet import Fleet
from fed_lorac.registry import STRATEGIES
from fed_lorac.reporting.to_come import BytesToCome
from fed_lorac.simulation.build_strategy import reference_of
from fed_lorac.simulation.waste import first_update
from fed_lorac.wire.billing import weighed_frame

__all__ = ["bytes_to_come", "first_round", "reply_bytes"]


def bytes_to_come(experiment: Experiment) -> BytesToCome | None:
    """What the run of an experiment will send; None where a first round settles its layers or bases, by what is
    seen there.

    A reply is built of drawn numbers and measured, and so is the update of the first round's cameras; where payloads
    are entropy-coded a run sends less. Cameras are drawn at random, so a round's uplink is that of so many mean
    cameras.
    """
    if experiment.plan.settles:
        return None
    fleet, rounds, reference = experiment.fleet, experiment.plan.rounds, reference_of(experiment)
    cameras, asked = len(fleet.cameras), fleet.per_round
    strategy, sends = STRATEGIES.load(experiment.config.strategy.name), experiment.plan.sends
    of_places = [reply_bytes(experiment, place) for place in range(len(experiment.adapters))] if sends else []
    replies = tuple(of_places[experiment.place(camera)] if sends else 0 for camera in range(cameras))
    update = len(first_update(experiment, first_round(fleet)).frame) if sends else 0
    full, full_fp32 = (
        asked * one.up.frame_bytes + _sent(fleet, one.down.frame_bytes)
        for one in (reference.same_codec, reference.fp32)
    )
    return BytesToCome(
        replies=replies,
        update=update,
        uplink=rounds * round(asked * sum(replies) / cameras),
        downlink=rounds * _sent(fleet, update),
        full=rounds * full,
        full_fp32=rounds * full_fp32,
        personal=bool(sends and strategy.personal_kind),
        sent_to=_to_whom(experiment.config.fleet.downlink),
    )


def first_round(fleet: Fleet) -> tuple[int, ...]:
    """Round 1's cameras, were all of them there: as many states as an update is made of when nothing fails."""
    return replace(fleet, availability=1.0).drawn(1)


def _sent(fleet: Fleet, n_bytes: int) -> int:
    """Bytes of an update to all cameras: a copy to each, or by multicast once and to those that ask again."""
    counts = np.bincount(fleet.link_places, minlength=len(fleet.links))
    copies = sum(
        1 + round(count * link.repaired(n_bytes)) if link.multicasts and count else int(count)
        for link, count in zip(fleet.links.values(), counts, strict=True)
    )
    return copies * n_bytes


def _to_whom(downlink: str) -> str:
    return "to every camera" if downlink == "unicast" else f"to all cameras ({downlink})"


def reply_bytes(experiment: Experiment, place: int) -> int:
    """The frame of a reply of a camera whose adapter has this place, were it not entropy-coded."""
    uplink = experiment.plan.uplink
    like = {name: torch.empty(shape, device="meta") for name, shape in uplink_template(experiment, place).items()}
    known = frame_spec(experiment).templates
    return len(weighed_frame(like, uplink.codec, topk_share=uplink.topk_share, templates=known))
