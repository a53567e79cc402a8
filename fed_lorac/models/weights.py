"""Where a base network's weights come from: shipped, a checkpoint, ImageNet, or none. Knows files and layers only.

Checkpoints are safetensors. A `.pth` of the user's is read with `weights_only=True`, which runs no code from it.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fed_lorac.errors import DataError
from fed_lorac.models.torchvision_resnet import TORCHVISION

__all__ = ["SHIPPED", "Checkpoint", "imagenet", "load_into", "read_checkpoint", "shipped_path"]

SHIPPED = {"resnet20": "resnet20-cifar10.safetensors", "resnet8": "resnet8-digits.safetensors"}
"""Model -> package file; its metadata says what it was trained on."""


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and what their file says of how they were trained (empty where it says nothing)."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)


def shipped_path(model: str) -> Path:
    """The package file with weights of `model`.

    Flower's app bundle holds code only, so the file is looked for on the whole import path, not just beside this file.
    """
    if model not in SHIPPED:
        raise DataError(
            f"Shipped weights exist for {', '.join(SHIPPED)}; asked for {model}. "
            "Train a base with `fed-lorac pretrain`, or set model.weights to a checkpoint."
        )
    name = Path("fed_lorac", "models", "weights", SHIPPED[model])
    for root in (Path(__file__).parents[2], *map(Path, sys.path)):
        if (root / name).is_file():
            return root / name
    raise DataError(f"The package file {name} is missing. Install fed-lorac again.")


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read `.safetensors`, or a `.pth` / `.pt` state dict of plain tensors; DataError where it is neither."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"model.weights names a file; {path} is not there. Give a path that exists from {Path.cwd()}.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as cause:
        raise DataError(
            f"A .pth is read only if it holds plain tensors (weights_only=True); {path} does not: "
            f"{str(cause).splitlines()[0]}. Save `model.state_dict()`, best as safetensors."
        ) from None
    tensors = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise DataError(f"A checkpoint is a dict of tensors by name; {path} holds something else. Save a state_dict.")
    return Checkpoint(tensors)


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {}))  # noqa: SIM118
    except SafetensorError as cause:
        raise DataError(f"A .safetensors checkpoint must be whole; {path}: {cause}. Was it truncated?") from None


def load_into(model: nn.Module, checkpoint: Checkpoint, source: str) -> None:
    """Load every tensor of `model` from the checkpoint; DataError names what is missing, unknown or misshapen."""
    own = model.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    missing = sorted(own.keys() - checkpoint.tensors.keys() - counters)
    unknown = sorted(checkpoint.tensors.keys() - own.keys())
    misfits = [
        f"{name} {tuple(checkpoint.tensors[name].shape)} for {tuple(own[name].shape)}"
        for name in sorted(own.keys() & checkpoint.tensors.keys())
        if checkpoint.tensors[name].shape != own[name].shape
    ]
    if missing or unknown or misfits:
        raise DataError(
            f"A checkpoint must hold the model's tensors and no others; in {source} missing: {missing[:3] or 'none'}, "
            f"unknown: {unknown[:3] or 'none'}, of another shape: {misfits[:3] or 'none'}. "
            "Set model.name, model.width, model.norm and model.shortcut as they were in training."
        )
    model.load_state_dict(dict(checkpoint.tensors), strict=False)


def imagenet(model: nn.Module, name: str) -> None:
    """torchvision's ImageNet-1K weights, downloaded on first use; the stem and the classifier stay fresh."""
    if name not in TORCHVISION:
        raise DataError(
            f"ImageNet weights exist for {', '.join(TORCHVISION)}; model.name is {name!r}. Choose one of these."
        )
    import torchvision  # noqa: PLC0415  (slow to import, and no other weights need it)

    try:
        weights = getattr(torchvision.models, name)(weights="IMAGENET1K_V1").state_dict()
    except OSError as cause:
        raise DataError(
            f"torchvision downloads ImageNet weights on first use, which failed: {cause}. "
            "Connect once, or set model.weights to a local checkpoint."
        ) from None
    kept = {k: v for k, v in weights.items() if k not in ("conv1.weight", "fc.weight", "fc.bias")}
    model.load_state_dict(kept, strict=False)
