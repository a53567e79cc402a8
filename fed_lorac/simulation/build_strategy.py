"""The strategy that a config names, and what full fine-tuning would send instead. Knows experiments and strategies; not
rounds or records."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from flwr.app import ConfigRecord, MessageType
from torch import Tensor

from fed_lorac.adapters.choice import Budget
from fed_lorac.adapters.settled import Settled
from fed_lorac.client.agreement import frame_spec
from fed_lorac.client.state import GlobalModel, encode_global_model, fold_updates
from fed_lorac.config import CodecConfig, Topk
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.adapters import candidates, settled_on
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.fleet.clock import Clock
from fed_lorac.fleet.fleet import Fleet
from fed_lorac.fleet.losses import Losses
from fed_lorac.runtime.spelling import toml
from fed_lorac.seeds import stream
from fed_lorac.server.audience import Audience
from fed_lorac.server.fleet_strategy import Downlink, FleetStrategy, Update
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.server.rules import FleetRules
from fed_lorac.server.settling_strategy import BasisSurvey, LayerSurvey, SettlingStrategy
from fed_lorac.server.silent_fleet import SilentFleet
from fed_lorac.server.strategy import DownlinkCodec, FrameSpec, Shapes
from fed_lorac.server.traits import SilentStrategy
from fed_lorac.simulation.round import judge_by_clock
from fed_lorac.training.accuracy import statistics_of
from fed_lorac.wire.billing import (
    FullMessages,
    MessageSize,
    Reference,
    check_own_codec,
    full_message,
    reply_records,
)
from fed_lorac.wire.frame import encode, payload_bytes
from fed_lorac.wire.template import template_of

__all__ = ["full_messages", "reference_of", "strategy_of", "update_message"]


def strategy_of(
    experiment: Experiment,
    roster: Mapping[int, int] | None = None,
    clock: Clock | None = None,
    *,
    together: bool = False,
) -> FleetStrategy:
    """The strategy that the config names, for its base and fleet; with a clock, late replies are left out. `together`:
    where cameras share images and a sample is measured, the others hear updates as an audience."""
    config, strategy = experiment.config, experiment.config.strategy.strategy()
    fleet = experiment.fleet
    rules = FleetRules(
        quorum=config.quorum_cameras,
        roster=roster,
        draw=fleet.drawn,
        away=fleet.away,
        link=_links(fleet),
        losses=Losses(fleet) if any(link.loses for link in fleet.links.values()) else None,
    )
    sampled = fleet.overlapping and len(experiment.measured) < len(fleet.cameras)
    if together and sampled and not (strategy.sends and strategy.personal_kind):
        audience = Audience(list(fleet.links), fleet.link_places)
        rules = replace(rules, measured=experiment.measured, audience=audience)
    if clock is not None:
        rules = replace(rules, judge=partial(judge_by_clock, clock))
    if isinstance(strategy, SilentStrategy):
        return SilentFleet(strategy, rules)
    more: dict[str, Any] = {
        "codec": DownlinkCodec(config.codec.build("down"), config.codec.table(Topk).share, config.codec.entropy_coding),
        "seed": config.run.seed,
        "rules": rules,
        "encode_global_model": _GlobalModelFrame(experiment),
        "weather_of": _weathers(experiment),
    }
    spec = frame_spec(experiment)
    if experiment.plan.budget_bytes:
        return SettlingStrategy(strategy, spec, _layer_survey(experiment, spec), **more)
    if experiment.plan.finds_bases:
        return SettlingStrategy(strategy, spec, _basis_survey(experiment), **more)
    return FrameStrategy(strategy, spec, **more)


def _links(fleet: Fleet) -> Callable[[int], str]:
    """Camera -> its link."""
    if fleet.overlapping:  # and perhaps a million of them
        return lambda camera: fleet.cameras[camera].link
    return {camera.id: camera.link for camera in fleet.cameras}.__getitem__


def _basis_survey(experiment: Experiment) -> BasisSurvey:
    adapter, base = experiment.adapter, experiment.base.model
    shapes = {name: base.get_parameter(f"{name}.weight").shape for name in adapter.gradients_wanted(base)}
    return BasisSurvey(_spec_of(experiment), adapter, shapes)


def _spec_of(experiment: Experiment) -> Callable[[Settled], FrameSpec]:
    return lambda settled: frame_spec(settled_on(experiment, settled))


def _layer_survey(experiment: Experiment, spec: FrameSpec) -> LayerSurvey:
    uplink = experiment.plan.uplink

    def takes(shapes: Shapes) -> int:
        """The payload of tensors of these shapes, which are read and no value."""
        zero = torch.zeros(())
        return payload_bytes(
            {name: zero.expand(tuple(s)) for name, s in shapes.items()}, uplink.codec, uplink.topk_share
        )

    budget = Budget(experiment.plan.budget_bytes, candidates(experiment), takes, spec.template)
    for one in (budget.layers[:1], budget.layers[-1:]):
        alone = takes(frame_spec(settled_on(experiment, Settled(one))).template)
        if not alone == budget.needed_bytes(one) > budget.needed_bytes([]):
            raise ConfigError(
                'Layers are chosen where each takes bytes of its own; got adapter.layers = "auto" with adapter.method '
                f"= {toml(experiment.config.adapter.method)}, whose numbers are no layer's own. Name the layers, or "
                "choose another method."
            )
    return LayerSurvey(_spec_of(experiment), budget)


def _weathers(experiment: Experiment) -> Callable[[int], int]:
    """Camera -> the number of the weather that it was assigned, in the order in which cameras first have it."""
    cameras, weathers = experiment.fleet.cameras, experiment.fleet.own_corruptions
    return lambda camera: weathers.index(cameras[camera].corruption)


class _GlobalModelFrame:
    """The global model as one frame; kept, so that each update is folded once."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment, self._global_model = experiment, GlobalModel()

    def __call__(self, updates: Sequence[Update]) -> bytes:
        new = [(update.round, update.frame) for update in updates if update.round > self._global_model.round]
        self._global_model = fold_updates(self._experiment, self._global_model, new)
        return encode_global_model(self._experiment, self._global_model)


def reference_of(experiment: Experiment) -> Reference:
    """What full fine-tuning of the same model would send and be sent, in the run's codec and in fp32."""
    codec, fp32 = experiment.config.codec, full_messages(experiment, CodecConfig())
    return Reference(fp32 if codec.up == codec.down == "fp32" else full_messages(experiment, codec), fp32)


def full_messages(experiment: Experiment, codec: CodecConfig) -> FullMessages:
    """Build and measure what full fine-tuning of the same model would send and be sent under a codec: once in a
    process, as it follows from shapes, unless the codec is somebody else's."""
    tensors = {name: p.detach() for name, p in experiment.base.plain.named_parameters()}
    if experiment.plan.batch_norm.mode == "shared":
        tensors |= statistics_of(experiment.base.model)
    key = (tuple((name, tensor.shape) for name, tensor in tensors.items()), experiment.fleet.most_images, codec)
    if key not in _weighed or codec.outside():
        _weighed[key] = _weigh(tensors, experiment.fleet.most_images, codec)
    return _weighed[key]


_weighed: dict[Hashable, FullMessages] = {}
"""Shapes, images and codec -> full fine-tuning's messages."""


def _weigh(tensors: Mapping[str, Tensor], examples: int, codec: CodecConfig) -> FullMessages:
    share = codec.table(Topk).share
    for way in ("up", "down"):
        check_own_codec(codec.build(way))
    up = full_message(tensors, codec.build("up"), reply_records(examples), reply=True, topk_share=share)
    # Put together as the strategy does it, so that the two arms differ in the frame alone.
    rng, known = stream(0, "weighed"), [template_of({name: tensor.shape for name, tensor in tensors.items()})]
    zeros = {name: torch.zeros(tensor.shape) for name, tensor in tensors.items()}  # which every codec can carry
    frame = encode(zeros, dtype=codec.build("down"), base="", rng=rng, topk_share=share, templates=known)
    whole = encode(tensors, dtype="fp32", base="", templates=known)
    ask = Downlink().messages_down([0], ConfigRecord({"server-round": 1}), MessageType.TRAIN)[0].size
    down, anew = (update_message(Update(1, one)) for one in (frame, whole))
    return FullMessages(up, down, ask, anew)


def update_message(update: Update) -> MessageSize:
    """The size of the message that sends a camera an update."""
    told = ConfigRecord({"measure": True, "statistics": False, "server-round": 1})
    return Downlink([update]).messages_down([0], told, MessageType.EVALUATE)[0].size
