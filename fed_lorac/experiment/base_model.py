"""The base network that both ends start from, and whether it has seen the fleet's images. Knows models and data sets;
not cameras, adapters or rounds."""

import copy
import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, cast

import torch
from torch import Tensor, nn

from fed_lorac import __version__
from fed_lorac.adapters.adapter import Adapter
from fed_lorac.config import Config, Pretrain
from fed_lorac.data.datasets import Dataset
from fed_lorac.data.progress import at
from fed_lorac.data.store import cache_folder, note_use
from fed_lorac.errors import ConfigError, DataError, RunError
from fed_lorac.experiment.base_weights import Taken, fresh_normalization, recorded_resize, remedy, take
from fed_lorac.models import build, check_outputs, described
from fed_lorac.models.fingerprints import fingerprint, named_tensors
from fed_lorac.models.weights import SHIPPED, imagenet, read_checkpoint, shipped_path
from fed_lorac.runtime.files import home_expanded, reserved
from fed_lorac.runtime.normalization import CIFAR10, Normalization
from fed_lorac.runtime.precision import resolved_device, resolved_precision
from fed_lorac.runtime.tensor_files import write_tensors
from fed_lorac.seeds import torch_stream
from fed_lorac.training.batches import Augment
from fed_lorac.training.pretrain import RECIPE, OnStep, pretrain
from fed_lorac.training.recipe import Recipe

__all__ = ["BaseModel", "fresh_model", "load_base_model", "tell_notes", "train_base"]

Saw = Literal["no", "yes", "unknown"]

_UNLIKE = {"cifar10", "cifar100", "digits", "traffic-signs"}
"""Data sets that share no image."""


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A plain network in eval mode, its fingerprint, its source, if it was trained on the fleet's images, what its
    pixels are normalised by, and what was done to a file that was not made for it.

    `unprepared`: where `model` was prepared for an adapter, the network before that, whose fingerprint it is.
    """

    model: nn.Module
    fingerprint: str
    source: str
    saw_fleet_images: Saw
    normalization: Normalization = CIFAR10
    notes: tuple[str, ...] = ()
    unprepared: nn.Module | None = None

    @property
    def plain(self) -> nn.Module:
        """The network as its weights have it."""
        return self.model if self.unprepared is None else self.unprepared

    def prepared(self, adapter: Adapter) -> Self:
        """The base with what an adapter needs beside its own tensors, and without what another needed."""
        model = self.plain
        if not adapter.adapts_to_batch:
            return self if model is self.model else replace(self, model=model, unprepared=None)
        prepared = copy.deepcopy(model)
        adapter.prepare(prepared)
        return replace(self, model=prepared, unprepared=model)

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """Its parameters and buffers by name, which are not to be altered."""
        return named_tensors(self.model)


def fresh_model(config: Config, classes: int) -> nn.Module:
    """The config's network with weights drawn from the run's seed."""
    m = config.model
    generator = torch_stream(config.run.seed, "model")
    model = build(m.name, num_classes=classes, generator=generator, **m.settings("name"))
    check_outputs(m.name, model, classes, config.data.image_size)
    return model


def load_base_model(config: Config, data: Dataset, *, trains_on: bool = False) -> BaseModel:
    """The base that `model.weights` names, for the data set's classes; `trains_on` where it is to be trained first.

    Raises:
        DataError: weights that are missing, damaged, or of another network, other classes or another normalisation.
    """
    model, weights = fresh_model(config, len(data.classes)), config.model.weights
    saw: Saw = "no"
    taken = Taken(fresh_normalization(config), ())
    if weights == "imagenet":
        loaded = imagenet(model, config.model.name)
        own = config.model.normalization == "auto"
        taken = Taken(loaded.normalization if own else taken.normalization, loaded.notes)
    elif weights != "none":
        path = _checkpoint_path(config, data)
        checkpoint = read_checkpoint(path, model.state_dict())
        source = path.name if weights in ("shipped", "pretrain") else str(path)
        taken = take(model, checkpoint, source, config, data.classes, trains_on=trains_on)
        saw = saw_fleet_images(checkpoint.metadata, config, data)
    identity = fingerprint(named_tensors(model))
    return BaseModel(model.eval(), identity, weights, saw, taken.normalization, taken.notes)


def tell_notes(base: BaseModel) -> None:
    """Warn of what was done to a file of weights: once, by whoever drives, and not by each worker that loads it."""
    for note in base.notes:
        logging.getLogger(__name__).warning("Base %s: %s.", base.source, note)


def _checkpoint_path(config: Config, data: Dataset) -> Path:
    if config.model.weights == "shipped":
        if config.model.name not in SHIPPED:
            raise DataError(
                f"Shipped weights exist for {' and '.join(SHIPPED)}; model.name is {config.model.name!r}. "
                f"{remedy(config)}"
            )
        return shipped_path(config.model.name, config.data.name)
    if config.model.weights != "pretrain":
        return home_expanded(config.model.weights)
    name = fingerprint({_base_key(config, data): torch.zeros(1)})
    path = cache_folder() / f"base-{config.model.name.replace('/', '-')}-{name}.safetensors"
    if not path.is_file():
        train_base(config, data, path, on_step=lambda step, steps, loss: at("training the base", step + 1, steps))
    note_use(path)
    return path


def _base_key(config: Config, data: Dataset) -> str:
    """All that decides what training a base finds."""
    run, cloud = config.run, hashlib.sha256(data.cloud.tobytes()).hexdigest()
    recipe = _recipe(config, fresh_normalization(config))
    parts = (data.fingerprint, cloud, repr(config.model), run.seed, run.threads, resolved_device(run.device), recipe)
    code = [f"{package} {its}" for package, its in config.model.outside().items()]
    return "|".join(map(str, (*parts, *code)))


def _recipe(
    config: Config, normalization: Normalization, lr: float = RECIPE.lr, weight_decay: float = RECIPE.weight_decay
) -> Recipe:
    """How a base's steps are taken: as the run's own, where it says."""
    return replace(
        RECIPE,
        lr=lr,
        weight_decay=weight_decay,
        precision=resolved_precision(config.run.precision, torch.device(resolved_device(config.run.device))),
        augment=cast(Augment, config.local.augment),
        normalization=normalization,
    )


def train_base(
    config: Config,
    data: Dataset,
    path: Path,
    *,
    lr: float = RECIPE.lr,
    weight_decay: float = RECIPE.weight_decay,
    epochs: int | None = None,
    held_out: float = 0.0,
    overwrite: bool = False,
    on_step: OnStep = lambda step, steps, loss: None,
) -> Mapping[str, str]:
    """Train a base on the cloud's images, write it to `path` with its provenance, and return that.

    It starts from `model.weights` where that is a checkpoint or "imagenet", else from fresh weights; a classifier for
    other classes is drawn anew. `epochs`: passes over the images; None: as `model.pretrain.epochs`. `held_out`: the
    share of the images that is kept out of training and scored in the place of the test images. It trains on
    `run.device`.

    Raises:
        ConfigError: a rate or a share is no finite number.
        RunError: `path` cannot be written, or has a file that is not to be overwritten, or there is no such device:
            found before training. Or training diverged: nothing is written then.
    """
    _check_finite(lr=lr, weight_decay=weight_decay, held_out=held_out)
    if not len(data.cloud):
        raise DataError(f"A base is trained on the cloud's images; {data.name} keeps none for it. Set model.weights.")
    device = torch.device(resolved_device(config.run.device))
    start = _starting_point(config, data)
    tell_notes(start)
    epochs = epochs or config.model.table(Pretrain).epochs
    recipe = _recipe(config, start.normalization, lr, weight_decay)
    size_bytes = sum(tensor.nbytes for tensor in start.model.state_dict().values())
    with reserved(path, size_bytes, overwrite=overwrite):
        result = pretrain(
            start.model.to(device),
            data,
            epochs=epochs,
            seed=config.run.seed,
            recipe=recipe,
            held_out=held_out,
            on_step=on_step,
        )
        _check_converged(start.model, lr)
    said = provenance(config, data, recipe, epochs) | {
        "continued_from": start.fingerprint if start.source != "none" else "",
        "held_out": f"{held_out:g}",
        "held_out_accuracy" if held_out else "test_accuracy": f"{result.accuracy:.4f}",
    }
    write_tensors(path, start.model.state_dict(), said)
    return said


def _check_finite(**numbers: float) -> None:
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise ConfigError(f"A base is trained with finite numbers; {name} is {number}. Correct it.")


def _check_converged(model: nn.Module, lr: float) -> None:
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise RunError(
                f"A base has finite numbers only; training diverged at a learning rate of {lr:g}, and {name} holds NaN "
                "or infinity. Nothing was written. Lower the rate: `fed-lorac pretrain --lr`."
            )


def provenance(config: Config, data: Dataset, recipe: Recipe, epochs: int) -> dict[str, str]:
    """What a checkpoint's metadata says of its training, as strings."""
    return {
        **described(config.model.name, config.model.settings("name")),
        "classes": json.dumps(data.classes),
        "normalization": recipe.normalization.text,
        "data": data.name,
        "data_set": config.data.name,
        "data_fingerprint": data.fingerprint,
        **recorded_resize(config),
        "cloud_share": _share(data),
        "pretrain_epochs": str(epochs),
        "lr": str(recipe.lr),
        "weight_decay": str(recipe.weight_decay),
        "batch_size": str(recipe.batch_size),
        "augment": recipe.augment,
        "precision": recipe.precision,
        "seed": str(config.run.seed),
        "threads": str(config.run.threads),
        "device": resolved_device(config.run.device),
        "fed_lorac": __version__,
        "torch": torch.__version__,
    }


def _starting_point(config: Config, data: Dataset) -> BaseModel:
    goes_on = config.model.weights not in ("none", "shipped", "pretrain")
    start = config if goes_on else replace(config, model=config.model.choose("weights", "none"))
    return load_base_model(start, data, trains_on=True)


def saw_fleet_images(metadata: Mapping[str, str], config: Config, data: Dataset) -> Saw:
    """Whether a base with this provenance was trained on images that cameras now have.

    Both splits go by rank within class in one order, so a base that took no larger share has seen none of them.
    CIFAR-10-C is made of test images, which no base is trained on. Where cameras have images of their own, the data
    set's fingerprint says which of them are the cloud's.
    """
    known = metadata.get("data_set"), metadata.get("cloud_share")
    if None in known:
        return "unknown"
    if config.data.name == "cifar10c" and known[0] == "cifar10":
        return "no"
    equal = metadata.get("data_fingerprint") == data.fingerprint
    if equal and config.data.name == "cameras":
        return "no"
    if not equal and not known[0] == config.data.name in ("cifar10", "cifar100", "traffic-signs"):
        return "no" if {known[0], config.data.name} <= _UNLIKE else "unknown"
    return "no" if float(str(known[1])) <= float(_share(data)) else "yes"


def _share(data: Dataset) -> str:
    return f"{len(data.cloud) / (len(data.cloud) + len(data.fleet)):.6f}"
