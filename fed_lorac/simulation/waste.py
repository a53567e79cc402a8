"""A strategy that sends down far more than what its adapter needs, and the better choice. Knows experiments, strategies
and the sizes of their updates; not rounds or ledgers.

Nothing is known here of single methods: what an update weighs is compared with what cameras send up, and where it is
far more, the update that each other exact strategy would make of the same adapter is built and weighed too.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from fed_lorac.client.agreement import uplink_template
from fed_lorac.config import CodecConfig, Config, Topk
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.build import local_plan
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.registry import STRATEGIES
from fed_lorac.runtime.settings import Scalar
from fed_lorac.seeds import torch_stream
from fed_lorac.server.fleet_strategy import Update
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.simulation.build_strategy import full_messages, strategy_of
from fed_lorac.wire.billing import weighed_frame
from fed_lorac.wire.frame import inspect, payload_bytes

__all__ = ["OwnFrame", "first_frames", "first_update", "wasteful"]

OwnFrame = tuple[Hashable, int]
"""Whose a part is that some cameras have beside the update for all, and the bytes of its frame."""

FAR_MORE = 4
"""So many times what cameras send up, or what another strategy would send down, is worth a remark."""

_SVD: Mapping[str, Scalar] = {"downlink": "svd", "svd_rank": 0}


def wasteful(experiment: Experiment, update: Update) -> str | None:
    """A remark on a run's first update where it weighs far more than what cameras send up and than the update of
    another strategy that accepts the same adapter and is exact; None where it does not."""
    config, codec = experiment.config, experiment.config.codec
    template = {name: torch.zeros(shape) for name, shape in uplink_template(experiment).items()}
    needed, sent = (
        payload_bytes(template, codec.build("down"), codec.table(Topk).share),
        inspect(update.frame).payload_bytes,
    )
    if sent <= FAR_MORE * needed:
        return None
    highest = [experiment.adapters.index(experiment.adapter)]  # the first camera that has the adapter of this place
    others = [(first_update(_under(experiment, other), highest), said) for other, said in _others(config)]
    best = min(others, key=lambda one: len(one[0].frame), default=None)
    if best is None or len(best[0].frame) * FAR_MORE > len(update.frame):
        return None
    fewer, said = best
    full = full_messages(experiment, CodecConfig()).down.frame_bytes
    ours, theirs = (len(one.frame) for one in (update, fewer))
    return (
        f"Updates are far larger than {config.adapter.method} needs: one of {config.strategy.name} weighs "
        f"{ours:,} bytes a camera, {ours / full:.1%} of full fine-tuning's in fp32. {said} and its update weighs "
        f"{theirs:,} bytes, {theirs / full:.1%}."
    )


def _others(config: Config) -> Iterator[tuple[Config, str]]:
    """Configs that differ in the strategy alone, are exact and make sense."""
    now = config.strategy
    by_svd = 'downlink = "svd" is exact over the rounds'
    for name, options, said in (
        (now.name, {"downlink": "state"}, f'strategy.{now.name}.downlink = "state" is exact too'),
        ("fedavg", {}, 'strategy.name = "fedavg" is exact too'),
        (now.name, _SVD, f"strategy.{now.name}.{by_svd}"),
        ("merged", _SVD, f'strategy.name = "merged" with {by_svd}'),
    ):
        try:
            other = replace(config, strategy=now.choose("name", name, **options))
        except ConfigError:
            continue
        if other != config and STRATEGIES.load(other.strategy.name).exact:
            yield other, said


def _under(experiment: Experiment, config: Config) -> Experiment:
    """The same experiment under another strategy."""
    plan, now = local_plan(config, experiment.precision, experiment.base.normalization), experiment.plan
    plan = replace(plan, budget_bytes=now.budget_bytes, finds_bases=now.finds_bases)
    return replace(experiment, config=config, plan=plan)


def first_update(experiment: Experiment, cameras: Sequence[int]) -> Update:
    """The first update that a strategy makes of some states of these cameras: its size follows from shapes."""
    return _FirstRound(experiment, cameras).update


def first_frames(experiment: Experiment, cameras: Sequence[int]) -> tuple[Update, Mapping[int, OwnFrame]]:
    """The same, and the frames that cameras of the fleet have beside it: their cluster's, or their own."""
    made = _FirstRound(experiment, cameras)
    return made.update, made.own()


class _FirstRound:
    """What a strategy makes of a round of these cameras' states, drawn in the place of trained ones.

    A server optimizer and an aggregator change values alone; the simplest of them stand in.
    """

    def __init__(self, experiment: Experiment, cameras: Sequence[int]) -> None:
        config = experiment.config
        simple = replace(
            config, strategy=config.strategy.choose("server_optimizer", "sgd").choose("aggregator", "mean")
        )
        built = strategy_of(_under(experiment, simple))
        assert isinstance(built, FrameStrategy)  # whoever sends updates is one
        self._strategy, self._fleet = built.strategy, experiment.fleet
        self._server, drawn = replace(built.state, round=1), torch_stream(0, "weighed")
        shapes = {camera: uplink_template(experiment, experiment.place(camera)) for camera in cameras}
        deltas = (
            self._server.client_delta(
                camera, 1.0, {name: torch.randn(shape, generator=drawn) for name, shape in its.items()}
            )
            for camera, its in shapes.items()
        )
        self._proposal = self._strategy.propose(self._server, deltas)
        dtype, share = config.codec.build("down"), config.codec.table(Topk).share
        self._weighed = partial(weighed_frame, dtype=dtype, topk_share=share, templates=built.spec.templates)
        self.update = Update(1, self._weighed(self._proposal.update))

    def own(self) -> dict[int, OwnFrame]:
        """Camera -> whose its part is, and the bytes of the frame; of those that have one."""
        if not self._strategy.personal_kind:
            return {}
        decoded = self._strategy.decode_update(self._server, self._proposal.update)
        server = self._strategy.commit(self._server, self._proposal, decoded)
        parts = {camera.id: self._strategy.personal(server, camera.id) for camera in self._fleet.cameras}
        of_each = {part.name: part for part in parts.values() if part is not None}
        sizes = {name: len(self._weighed(part.state())) for name, part in of_each.items()}
        return {camera: (part.name, sizes[part.name]) for camera, part in parts.items() if part is not None}
