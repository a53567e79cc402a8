"""A checkpoint's weights into the config's network, for the data's classes: taken where that is safe and said, else
refused with what to type. Knows config, models and classes' names; not images, training or cameras."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

from torch import nn

from fed_lorac.config import Config
from fed_lorac.config.names import OF_ANY_SIZE
from fed_lorac.errors import ConfigError, DataError
from fed_lorac.models import described
from fed_lorac.models.classes import classes_of, difference, in_order, reordered
from fed_lorac.models.fitting import classifier_tensors, load_into, misfit_of_classifier
from fed_lorac.models.weights import Checkpoint
from fed_lorac.registry import ADAPTERS, MODELS, STRATEGIES
from fed_lorac.runtime.normalization import CIFAR10, Normalization

__all__ = ["Taken", "fresh_normalization", "recorded_normalization", "recorded_resize", "remedy", "take"]


@dataclass(frozen=True)
class Taken:
    """What a base's pixels are normalised by, and what its user must know of where its weights come from."""

    normalization: Normalization
    notes: tuple[str, ...]


def take(
    model: nn.Module, checkpoint: Checkpoint, source: str, config: Config, classes: Sequence[str], *, trains_on: bool
) -> Taken:
    """Load the checkpoint into `model`, whose classifier's rows are `classes`.

    `trains_on`: training follows, so a classifier for other classes is left as it was drawn, and said. So it is where
    cameras train it, and the file, which names no classes, has another number of them or none. Without, a base whose
    classifier knows nothing of the data is refused.

    Raises:
        DataError: it is of another network, of other classes, behind another normalisation, or unsound; `model` is
            then as it was.
    """
    said = checkpoint.metadata
    _check_kind(said, source)
    _check_network(said, source, config)
    normalization, assumed = _normalization(said, source, config)
    squared = _check_squares(said, source, config, trains_on=trains_on)
    checkpoint, why = _with_classes(model, checkpoint, classes)
    if why and not (trains_on or ("classes" not in said and _cameras_train_classifier(config))):
        raise DataError(_of_other_classes(said, source, config, why))
    notes = load_into(model, checkpoint, source, fresh=classifier_tensors(model) if why else ())
    told = (f"its classifier is drawn anew, to be trained: {why}",) if why else _of_other_data(said, config)
    return Taken(normalization, (*checkpoint.notes, *notes, *told, *assumed, *squared))


def _cameras_train_classifier(config: Config) -> bool:
    told = (
        config.adapter.settings("method", part).get("train_classifier", ADAPTERS.load(part).trains_classifier)
        for part in ADAPTERS.parts(config.adapter.method)
    )
    return any(told) and STRATEGIES.load(config.strategy.name).trains


def _with_classes(model: nn.Module, checkpoint: Checkpoint, classes: Sequence[str]) -> tuple[Checkpoint, str]:
    """The checkpoint with its classifier's rows in the order of `classes`; or why that cannot be, in words."""
    classifier = classifier_tensors(model)
    its = classes_of(checkpoint, classifier)
    if its is not None and set(its) != set(classes):
        return checkpoint, difference(its, classes)
    if misfit := misfit_of_classifier(model, checkpoint):
        return checkpoint, misfit
    if its is None:
        taken = f"its {len(classes)} are taken to be the data's, in the data's order, {in_order(classes)}"
        note = f"its classes are not recorded: {taken}"
        return replace(checkpoint, notes=(*checkpoint.notes, note)), ""
    return (checkpoint if its == tuple(classes) else reordered(checkpoint, classifier, its, classes)), ""


def _of_other_classes(said: Mapping[str, str], source: str, config: Config, why: str) -> str:
    if config.model.weights == "shipped":
        return (
            f"Shipped weights are for the data that they were trained on; those of {config.model.name} are of "
            f"{said.get('data', 'other data')}: {why}. {remedy(config)}"
        )
    rename = "Rename the class folders, or t" if " alone" in why and config.data.name == "folder" else "T"
    return f"A base's classifier must be for the data's classes; {source}: {why}. {rename}{remedy(config)[1:]}"


def remedy(config: Config) -> str:
    """What to type to have a base of one's own."""
    names = chain(["base.safetensors"], (f"base-{number}.safetensors" for number in count(2)))
    out = next(name for name in names if not Path(name).exists())  # what is there is not overwritten
    return f'Train a base on this data: `{pretrain_command(config, out)}`; then set model.weights = "{out}".'


def pretrain_command(config: Config, out: str) -> str:
    """The whole command that trains a base for this config's network and data, whatever file the config is from."""
    wanted = {key: value for key, value in config.changed().items() if key.startswith(("data.", "model."))}
    epochs = wanted.pop("model.pretrain.epochs", None)
    if config.data.name == "cifar10c":  # has no images to train on
        wanted["data.name"] = "cifar10"
    if config.model.weights in ("none", "pretrain"):
        wanted.pop("model.weights")
    words = [
        f"-c {shlex.quote(f'{key}={str(value).lower() if isinstance(value, bool) else value}')}"
        for key, value in wanted.items()
    ]
    words += [f"--epochs {epochs}"] * (epochs is not None)
    return " ".join(["fed-lorac pretrain", *words, f"--out {out}"])


def _check_kind(said: Mapping[str, str], source: str) -> None:
    if said.get("holds") == "adapter":
        raise DataError(
            f"model.weights names a network; {source} is an adapter alone. Name the run's model.safetensors, or the "
            "base that it was made on."
        )
    if said.get("holds") == "network" and said.get("batch_norm", "").startswith("folded"):
        raise DataError(
            f"A base has its batch norm as it was trained; {source} was exported with it folded. Name the run's "
            "model.safetensors, or export again with --no-fold."
        )


def _check_network(said: Mapping[str, str], source: str, config: Config) -> None:
    """DataError where our own metadata names another network: it says more than shapes that do not fit."""
    if "fed_lorac" not in said:
        return
    own = config.model
    wanted = described(own.name, own.settings("name"))
    came = {key: said.get(key, wanted[key]) for key in wanted}
    if came.get("width") == "0" and came["model"] in MODELS.names:  # its own width
        came["width"] = described(came["model"], {})["width"]
    if odd := [key for key in wanted if came[key] != wanted[key]]:
        settings, ours = (", ".join(_setting(its, key) for key in odd) for its in (came, wanted))
        instead = f", or t{remedy(config)[1:]}" if own.weights == "shipped" else "."
        raise DataError(
            f"A checkpoint is loaded into the network that it was trained as; {source} was trained with {settings}, "
            f"the config has {ours}. Set it as it was in training{instead}"
        )


def _of_other_data(said: Mapping[str, str], config: Config) -> tuple[str, ...]:
    its, ours = said.get("data_set"), config.data.name
    if its in (None, ours) or (its, ours) == ("cifar10", "cifar10c"):
        return ()
    return (f"it was trained on {said.get('data', its)}, not on this data, whose classes have the same names",)


def fresh_normalization(config: Config) -> Normalization:
    """That of weights that were trained behind none: as set, or CIFAR-10's."""
    setting = config.model.normalization
    return CIFAR10 if setting == "auto" else Normalization.parse(setting)


def recorded_normalization(said: Mapping[str, str]) -> Normalization | None:
    """What a checkpoint's metadata says that it was trained behind; None where it is not ours and says nothing.

    Raises:
        ConfigError: what it says cannot be read.
    """
    if "normalization" in said:
        return Normalization.parse(said["normalization"])
    # Ours of before this was written down: bases and exports name the package's version, a run's model its round.
    return CIFAR10 if "fed_lorac" in said or "folded_round" in said else None


def _normalization(said: Mapping[str, str], source: str, config: Config) -> tuple[Normalization, tuple[str, ...]]:
    setting, asked = config.model.normalization, fresh_normalization(config)
    try:
        recorded = recorded_normalization(said)
    except ConfigError as cause:
        raise DataError(
            f"A checkpoint's metadata names its normalization; {source}: {cause} Write it so, or leave it out."
        ) from None
    if recorded is None:
        how = "assumed" if setting == "auto" else "as set"
        return asked, (f"its normalization is not recorded: {asked.text} {how} (model.normalization)",)
    if setting != "auto" and asked != recorded:
        raise DataError(
            f"A network is right behind the normalization that it was trained with; {source} says {recorded.text!r}, "
            f'model.normalization is {setting!r}. Set it to "auto".'
        )
    return recorded, ()


def recorded_resize(config: Config) -> dict[str, str]:
    """What a file of weights says of how images became squares; nothing where they were so from the beginning."""
    return {"resize": config.data.resize} if config.data.name in OF_ANY_SIZE else {}


def _check_squares(said: Mapping[str, str], source: str, config: Config, *, trains_on: bool) -> tuple[str, ...]:
    """DataError where cameras' images become squares in another way than the base's did; with training to follow, a
    note."""
    its, ours = said.get("resize"), recorded_resize(config).get("resize")
    if None in (its, ours) or its == ours:
        return ()
    if trains_on:
        return (f'its images became squares by data.resize = "{its}", these do by "{ours}"',)
    raise DataError(
        f"A network is right on images that become squares as those that it was trained on; {source} says "
        f'data.resize = "{its}", the config has "{ours}". Set it to "{its}".'
    )


def _setting(network: Mapping[str, str], key: str) -> str:
    if key == "model":
        return f"model.name = {network[key]}"
    if key == "model_settings":
        return f"[model.options] {network[key]}"
    return f"model.{network['model']}.{key} = {network[key]}"
