"""What cameras do in a round, as plain values: nobody below the builder reads a whole config. Knows settings; not data,
networks or messages."""

from dataclasses import dataclass, replace
from typing import Literal, cast

from fed_lorac.config import Config, FleetEngine, LocalStatistics, Topk
from fed_lorac.config.compatibility import fixed_basis
from fed_lorac.registry import STRATEGIES
from fed_lorac.runtime.normalization import Normalization
from fed_lorac.runtime.precision import Precision
from fed_lorac.training.batches import Augment
from fed_lorac.training.loop import Recipe, cosine

__all__ = ["BatchNormPlan", "LocalPlan", "UplinkCodec", "local_plan"]


@dataclass(frozen=True)
class BatchNormPlan:
    """Whose batch-norm statistics are: the camera's (local), everyone's and sent (shared), the base model's (frozen).

    `fixed`: local training leaves them as they are. `window`: how many of its latest images a camera's own statistics
    are taken from; 0: all.
    """

    mode: str = "local"
    fixed: bool = False
    window: int = 0

    @property
    def local(self) -> bool:
        """Whether each camera has statistics of its own."""
        return self.mode == "local"

    @property
    def trains(self) -> bool:
        """Whether local training normalises by each batch's statistics."""
        return self.mode != "frozen" and not self.fixed


@dataclass(frozen=True)
class UplinkCodec:
    """How a camera encodes what it sends."""

    name: str = "fp32"
    topk_share: float = 0.05
    error_feedback: bool = False


@dataclass(frozen=True)
class LocalPlan:
    """What a camera does in a round, and what its messages mean.

    `recipe`: how steps are taken in the first round; a cosine takes its learning rate to 0 over `rounds`. `steps` a
    round, or where they are 0, `epochs`. `correlated`: images come class by class. `block_size`: how many cameras train
    side by side; 0: as `training.blocks.rule` says.

    `trains`, `sends`: whether it trains, and sends what it has trained. `updates`: each of the server's is a delta of
    weights, an adapter state that both ends turn into one, or factors that live on in the adapter. `clustered`: a
    camera's personal parameters are its cluster's delta of the weights; otherwise its adapter starts from them.
    `fixed_basis`: an adapter draws the same in every round.
    """

    seed: int
    rounds: int
    recipe: Recipe
    cosine: bool
    epochs: int
    steps: int
    image_size: int
    batch_norm: BatchNormPlan
    uplink: UplinkCodec
    block_size: int
    correlated: bool
    trains: bool
    sends: bool
    updates: Literal["delta", "state", "factors"]
    clustered: bool
    fixed_basis: bool

    def recipe_in(self, round: int) -> Recipe:
        """How steps are taken in a round, from 1."""
        return replace(self.recipe, lr=self.recipe.lr * cosine(round - 1, self.rounds)) if self.cosine else self.recipe

    def steps_on(self, images: int) -> int:
        """Optimizer steps of a camera with so many images, in one round."""
        return self.steps or self.epochs * -(-images // self.recipe.batch_size)


def local_plan(config: Config, precision: Precision, normalization: Normalization) -> LocalPlan:
    """The plan of a config, in this precision, on pixels normalised like this."""
    local, codec, strategy = config.local, config.codec, STRATEGIES.load(config.strategy.name)
    correlated, statistics = config.fleet.stream == "correlated", config.batch_norm.table(LocalStatistics)
    recipe = Recipe(
        lr=local.lr,
        momentum=local.momentum,
        weight_decay=local.weight_decay,
        clip_norm=local.clip_norm or float("inf"),
        batch_size=local.batch_size,
        augment=cast(Augment, local.augment),
        precision=precision,
        prox_mu=local.prox_mu,
        shuffled=not correlated,
        normalization=normalization,
    )
    return LocalPlan(
        seed=config.run.seed,
        rounds=config.run.rounds,
        recipe=recipe,
        cosine=local.schedule == "cosine",
        epochs=local.epochs,
        steps=local.steps,
        image_size=config.data.image_size,
        batch_norm=BatchNormPlan(config.batch_norm.mode, statistics.training_statistics == "fixed", statistics.window),
        uplink=UplinkCodec(codec.up, codec.table(Topk).share, codec.error_feedback),
        block_size=1 if config.run.engine == "flower" else config.run.table(FleetEngine).block_size,
        correlated=correlated,
        trains=strategy.trains,
        sends=strategy.sends,
        updates=strategy.update_kind,
        clustered=strategy.personal_kind == "delta",
        fixed_basis=fixed_basis(config),
    )
