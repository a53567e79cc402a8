"""Where a base network's weights come from: shipped, a checkpoint, ImageNet, or none. Knows files and layers only."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fed_lorac.errors import DataError
from fed_lorac.models.fitting import classifier_tensors, load_into
from fed_lorac.models.libraries import Libraries
from fed_lorac.models.published import fetched
from fed_lorac.models.read import Checkpoint, read_checkpoint
from fed_lorac.models.stems import first_convolution
from fed_lorac.registry import MODELS
from fed_lorac.runtime.normalization import Normalization

__all__ = ["SHIPPED", "Checkpoint", "ImageNet", "imagenet", "load_into", "read_checkpoint", "shipped_path"]

SHIPPED: Mapping[str, Mapping[str, str]] = {
    "resnet20": {"cifar10": "resnet20-cifar10.safetensors"},
    "resnet8": {"digits": "resnet8-digits.safetensors", "traffic-signs": "resnet8-traffic-signs.safetensors"},
}
"""Model -> data set -> package file; its metadata says what it was trained on."""


def shipped_path(model: str, data_set: str = "") -> Path:
    """The package file with weights of `model`, of this data set where there are any, else the first.

    Flower's app bundle holds code only, so the file is looked for on the whole import path, not just beside this file.
    """
    if model not in SHIPPED:
        raise DataError(
            f"Shipped weights exist for {', '.join(SHIPPED)}; asked for {model}. "
            "Train a base with `fed-lorac pretrain`, or set model.weights to a checkpoint."
        )
    file = SHIPPED[model].get(data_set) or next(iter(SHIPPED[model].values()))
    name = Path("fed_lorac", "models", "weights", file)
    for root in (Path(__file__).parents[2], *map(Path, sys.path)):
        if (root / name).is_file():
            return root / name
    raise DataError(f"The package file {name} is missing. Install fed-lorac again.")


@dataclass(frozen=True)
class ImageNet:
    """What weights for ImageNet's classes were trained behind, and what was done to them."""

    normalization: Normalization
    notes: tuple[str, ...]


def imagenet(model: nn.Module, name: str) -> ImageNet:
    """Load the weights that torchvision or timm publish for the network, downloaded on first use; the classifier stays
    fresh and so does a stem of another shape, which is said in what is returned."""
    published = Libraries.published(name) if MODELS.is_of_library(name) else None
    if published is None:
        raise DataError(f"ImageNet weights exist for {Libraries.words}; model.name is {name!r}. Choose one of these.")
    path, own = fetched(published), model.state_dict()
    checkpoint = read_checkpoint(path, own)
    stem, classifier = first_convolution(model), classifier_tensors(model)
    came = checkpoint.tensors.get(f"{stem}.weight")
    anew = came is not None and came.shape != own[f"{stem}.weight"].shape
    fresh = (f"{stem}.weight", f"{stem}.bias", *classifier) if anew else classifier
    notes = load_into(model, checkpoint, str(path), fresh=fresh)
    which = "stem and classifier are" if anew else "classifier is"
    told = f"its {which} drawn anew: train {'them' if anew else 'it'} with `fed-lorac pretrain`"
    return ImageNet(published.normalization, (*checkpoint.notes, *notes, told))
