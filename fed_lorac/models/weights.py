"""Where a base network's weights come from: shipped, a checkpoint, ImageNet, or none. Knows files and layers only."""

import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import nn

from fed_lorac.errors import DataError
from fed_lorac.models.fitting import classifier_tensors, load_into
from fed_lorac.models.read import Checkpoint, read_checkpoint
from fed_lorac.models.torchvision_resnet import TORCHVISION

__all__ = ["SHIPPED", "Checkpoint", "imagenet", "load_into", "read_checkpoint", "shipped_path"]

SHIPPED: Mapping[str, Mapping[str, str]] = {
    "resnet20": {"cifar10": "resnet20-cifar10.safetensors"},
    "resnet8": {"digits": "resnet8-digits.safetensors", "traffic-signs": "resnet8-traffic-signs.safetensors"},
}
"""Model -> data set -> package file; its metadata says what it was trained on."""

_STEM = "conv1.weight"


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


def imagenet(model: nn.Module, name: str) -> tuple[str, ...]:
    """torchvision's ImageNet-1K weights, downloaded on first use; the stem and the classifier stay fresh, which is
    said in what is returned."""
    if name not in TORCHVISION:
        raise DataError(
            f"ImageNet weights exist for {', '.join(TORCHVISION)}; model.name is {name!r}. Choose one of these."
        )
    path = _imagenet_file(name)
    checkpoint = read_checkpoint(path, model.state_dict())
    notes = load_into(model, checkpoint, str(path), fresh=(_STEM, *classifier_tensors(model)))
    return (*checkpoint.notes, *notes, "its stem and classifier are drawn anew: train them with `fed-lorac pretrain`")


def _imagenet_file(name: str) -> Path:
    """torchvision's file, in the folder where torchvision keeps it; its name ends in its SHA-256's first digits."""
    from torchvision.models import get_model_weights  # noqa: PLC0415  (slow to import, and no other weights need it)

    url = get_model_weights(name)["IMAGENET1K_V1"].url
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), path.stem.rpartition("-")[2])
    except (OSError, RuntimeError) as cause:  # no network or no room; bytes of another hash
        raise DataError(
            f"ImageNet weights are downloaded on first use, which failed: {cause}. Fetch {url} on another machine and "
            f"put it at {path}, or set model.weights to a checkpoint of yours."
        ) from None
    return path
