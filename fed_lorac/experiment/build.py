"""From a config to the experiment, once; nobody below the builder reads a whole config. Knows config, data, fleet and
base; not messages or bytes."""

from dataclasses import replace
from functools import lru_cache
from typing import Literal, cast

import torch

from fed_lorac.config import (
    CamerasData,
    CifarData,
    Config,
    FleetEngine,
    FolderData,
    LocalStatistics,
    Sampled,
    Topk,
)
from fed_lorac.config.compatibility import finds_bases, fixed_basis
from fed_lorac.data.datasets import Dataset, load
from fed_lorac.data.decode import Resize
from fed_lorac.data.progress import at
from fed_lorac.data.store import cached_arrays
from fed_lorac.experiment.adapters import build_adapters, prepared
from fed_lorac.experiment.base_model import load_base_model
from fed_lorac.experiment.experiment import BatchNormPlan, Experiment, LocalPlan, UplinkCodec
from fed_lorac.fleet.assignment import build_fleet
from fed_lorac.fleet.camera_data import Stream
from fed_lorac.fleet.fleet import AS_IT_IS
from fed_lorac.fleet.labelled import Labelled
from fed_lorac.runtime.normalization import Normalization
from fed_lorac.runtime.precision import Precision, resolved_device, resolved_precision
from fed_lorac.runtime.settings import Scalar, items
from fed_lorac.training.batch_norm import check_cameras, check_used
from fed_lorac.training.batches import Augment
from fed_lorac.training.objectives.mixed import Mixed
from fed_lorac.training.recipe import KEPT_MIB, Recipe
from fed_lorac.wire.frame import by_name

__all__ = ["build_experiment", "forget_experiments", "local_plan", "open_data", "with_config"]


def open_data(config: Config) -> Dataset:
    """The data set of the config's `data` section."""
    d = config.data
    files, split, own = d.table(CifarData), d.table(FolderData), d.table(CamerasData)
    data = load(
        d.name,
        d.root,
        download=files.download,
        image_size=d.image_size,
        resize=cast(Resize, d.resize),
        cloud_share=split.cloud_share,
        cameras=config.fleet.cameras,
        eval_share=own.eval_share,
        cloud_cameras=items(own.cloud_cameras),
        settings=d.settings("name") if d.outside() else None,
    )
    each = {name: config.fleet.settings("corruptions", name) for name in config.fleet.corruption_names}
    return replace(data, corruption_settings={name: settings for name, settings in each.items() if settings})


def build_experiment(config: Config) -> Experiment:
    """The experiment of a config; the last two are kept, so that a worker builds each once."""
    torch.set_num_threads(config.run.threads)  # results repeat at equal threads only
    for way in ("up", "down"):
        by_name(config.codec.build(way))  # each process reads what any other sends
    return _experiment(tuple(sorted(config.to_flat().items())), _makers(config))


def forget_experiments() -> None:
    """Build the next one anew, whatever was built in this process: files that its config names may have changed."""
    _experiment.cache_clear()


def without_weights(config: Config) -> Config:
    """The same with a base that is drawn, for what follows from shapes and images: no file is read, no base trained."""
    return replace(config, model=config.model.choose("weights", "none"))


def _makers(config: Config) -> tuple[tuple[str, str | None], ...]:
    """Each corruption with what makes its pixels (None: nobody knows): with another, it is another experiment."""
    if config.data.name == "cifar10c":  # on file
        return ()
    from fed_lorac.data.corruptions import corruption_fingerprint  # noqa: PLC0415  (SciPy, which files do not need)

    names = [name for name in config.fleet.corruption_names if name != AS_IT_IS]
    return tuple((name, corruption_fingerprint(name, config.fleet.settings("corruptions", name))) for name in names)


@lru_cache(maxsize=2)
def _experiment(flat: tuple[tuple[str, Scalar], ...], makers: tuple[tuple[str, str | None], ...]) -> Experiment:
    config = Config.from_flat(dict(flat))
    device = torch.device(resolved_device(config.run.device))  # before data is opened, which may take minutes
    at(f"opening {config.data.name}")
    data = open_data(config)
    precision = resolved_precision(config.run.precision, device)
    at("assigning images to cameras")
    fleet = build_fleet(config.fleet, data, config.run.seed, cached_arrays)
    data.check_weathers(fleet.corruptions, clear=fleet.sees_clear)
    at("loading the base")
    base = prepared(config, load_base_model(config, data))
    plan = local_plan(config, precision, base.normalization)
    check_used(base.model, trains=plan.trains, shared=plan.batch_norm.mode == "shared")
    check_cameras(
        fleet.of_each_size,
        base.model,
        image_size=plan.image_size,
        batch_size=plan.recipe.batch_size,
        steps=0 if plan.settles else plan.steps,  # the round that settles something takes a whole pass
        window=plan.batch_norm.window,
        trains=plan.trains and plan.batch_norm.trains,
        local=plan.batch_norm.local,
    )
    known = frozenset(name for name, maker in makers if maker is not None)
    return Experiment(config, data, fleet, base, build_adapters(config, base, plan), plan, device, precision, known)


def with_config(experiment: Experiment, config: Config) -> Experiment:
    """The same data, fleet and base under a config that differs in adapter, strategy or codec alone."""
    base = prepared(config, experiment.base)
    plan = local_plan(config, experiment.precision, base.normalization)
    adapters = build_adapters(config, base, plan)
    return replace(experiment, config=config, base=base, plan=plan, adapters=adapters)


def local_plan(config: Config, precision: Precision, normalization: Normalization) -> LocalPlan:
    """The plan of a config, in this precision, on pixels normalised like this."""
    local, codec, strategy = config.local, config.codec, config.strategy.strategy()
    sample = config.run.table(Sampled)
    stream, statistics = cast(Stream, config.fleet.stream), config.batch_norm.table(LocalStatistics)
    recipe = Recipe(
        lr=local.lr,
        momentum=local.momentum,
        weight_decay=0.0 if strategy.forward_only else local.weight_decay,  # which no direction is of
        clip_norm=local.clip_norm or float("inf"),
        batch_size=local.batch_size,
        augment=cast(Augment, local.augment),
        precision=precision,
        prox_mu=local.prox_mu,
        shuffled=stream == "iid",
        normalization=normalization,
        kept_bytes=(local.kept_mib or KEPT_MIB) * 2**20,
    )
    return LocalPlan(
        seed=config.run.seed,
        rounds=config.run.rounds,
        recipe=recipe,
        objective=strategy.objective(local.built_objective()),
        labelled=_labelled(config),
        cosine=local.schedule == "cosine",
        epochs=local.epochs,
        steps=0 if local.epochs else local.steps,
        image_size=config.data.image_size,
        batch_norm=BatchNormPlan(config.batch_norm.mode, statistics.training_statistics == "fixed", statistics.window),
        uplink=UplinkCodec(codec.build("up"), codec.table(Topk).share, codec.error_feedback, codec.entropy_coding),
        block_size=1 if config.run.engine == "flower" else config.run.table(FleetEngine).block_size,
        stream=stream,
        trains=strategy.trains,
        sends=strategy.sends,
        updates=strategy.update_kind,
        clustered=strategy.personal_kind == "delta",
        fixed_basis=fixed_basis(config),
        budget_bytes=config.adapter.budget_bytes if config.adapter.chooses else 0,
        finds_bases=finds_bases(config),
        evaluate_cameras=sample.evaluate_cameras,
        evaluate_images=sample.evaluate_images,
    )


def _labelled(config: Config) -> Labelled | None:
    """Who has labels under "mixed"."""
    objective = config.local.built_objective()
    if not isinstance(objective, Mixed):
        return None
    whose = cast(Literal["images", "cameras"], objective.whose)
    return Labelled(objective.labelled_share, whose, config.fleet.cameras, config.run.seed)
