"""The strategy that a config names, and what full fine-tuning would send instead. Knows sites and strategies; not
rounds or records."""

from collections.abc import Callable, Mapping

from flwr.app import ConfigRecord, MessageType

from fed_lorac.camera import statistics_of, uplink_template
from fed_lorac.rounds import FullMessages
from fed_lorac.running import shapes_of
from fed_lorac.site import Site
from fed_lorac.wire.codec import encode
from fed_lorac.wire.meter import full_message, reply_records
from strategies.base import FrameStrategy
from strategies.factors import FactorFedAvg
from strategies.full import FullFedAvg
from strategies.merged import MergedFedAvg
from strategies.outbox import Outbox, Update

__all__ = ["STRATEGIES", "full_messages", "strategy_of"]

STRATEGIES: dict[str, Callable[..., FrameStrategy]] = {
    "merged": MergedFedAvg,
    "factors": FactorFedAvg,
    "full": FullFedAvg,
}
"""strategy.name -> its class."""


def strategy_of(site: Site, roster: Mapping[int, int] | None = None) -> FrameStrategy:
    """The strategy that the config names, for this site's base and fleet."""
    config = site.config
    own = {"downlink": config.strategy.downlink, "svd_rank": config.strategy.svd_rank}
    return STRATEGIES[config.strategy.name](
        base=site.base.fingerprint,
        shapes=shapes_of(site.base.model),
        template=uplink_template(site),
        scale=site.adapter.scale,
        dtype=config.codec.down,
        quorum=config.quorum_cameras,
        roster=roster,
        draw=site.fleet.drawn,
        away=site.fleet.away,
        **(own if config.strategy.name == "merged" else {}),
    )


def full_messages(site: Site) -> FullMessages:
    """Build and weigh, once, what full fine-tuning of the same model would send and be sent."""
    tensors = {name: p.detach() for name, p in site.base.model.named_parameters()}
    if site.config.batch_norm.mode == "shared":
        tensors |= statistics_of(site.base.model)
    told = ConfigRecord({"measure": True, "statistics": False, "server-round": 1})
    examples = max(len(camera.train) for camera in site.fleet.cameras)
    up = full_message(tensors, site.config.codec.up, reply_records(examples), reply=True)
    # Put together as the strategy does it, so that the two arms differ in the frame alone.
    update = Outbox([Update(1, encode(tensors, dtype=site.config.codec.down, base=""))])
    down = update.parcels([0], told, MessageType.EVALUATE)[0].weight
    ask = Outbox().parcels([0], ConfigRecord({"server-round": 1}), MessageType.TRAIN)[0].weight
    return FullMessages(up.message_bytes, down.message_bytes, ask.message_bytes)
