"""The network as a device runs it: stored pixels in, logits out. Knows layers; not runs or file formats."""

import json
from os import PathLike
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fed_lorac.adapters.fold_bn import fold_batch_norm
from fed_lorac.errors import DataError
from fed_lorac.export.foreign import read_from
from fed_lorac.models import build, said_settings
from fed_lorac.models.weights import load_into, read_checkpoint
from fed_lorac.runtime.files import home_expanded
from fed_lorac.runtime.normalization import CIFAR10, Normalization
from fed_lorac.training.accuracy import batch_norms

__all__ = ["FOLDED", "Deployed", "load_network"]

FOLDED = "folded"


def _told(*, folded: int, kept: int) -> str:
    """ "none", "kept" or "folded", where that is of all batch norms; else "folded 19, kept 2"."""
    if folded and kept:
        return f"{FOLDED} {folded}, kept {kept}"
    return FOLDED if folded else "kept" if kept else "none"


class Deployed(nn.Module):
    """A plain network behind its own normalisation: it takes pixels as an image file holds them, 0 to 255.

    `images.to_input` and the network give the same numbers, bit for bit. It is no part of the first convolution: that
    pads with zeros after it, and a zero of before would be another pixel at the border.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, batch_norm: str, normalization: Normalization = CIFAR10) -> None:
        super().__init__()
        self.network, self.batch_norm, self.normalization = network, batch_norm, normalization
        for name, values in (("mean", normalization.mean), ("std", normalization.std)):
            self.register_buffer(name, (torch.tensor(values) * 255).view(3, 1, 1), persistent=False)

    @classmethod
    def of(cls, network: nn.Module, *, fold: bool, normalization: Normalization = CIFAR10) -> Self:
        """A copy of `network`, in eval mode and without gradients, its batch norm folded where that is asked for."""
        plain = (fold_batch_norm(network) if fold else network).eval().requires_grad_(False)
        had, kept = (sum(1 for _ in batch_norms(one)) for one in (network, plain))
        return cls(plain, _told(folded=had - kept, kept=kept), normalization).eval()

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
        """RGB images (N, 3, H, W), float32, 0 to 255, to logits (N, classes)."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def load_network(path: str | PathLike[str], *, trust: bool = False) -> Deployed:
    """The network out of an exported .safetensors file.

    `trust`: whether the file may name the code that makes its network, "module:Name", which is imported and called.
    Built-in networks, a library's and those of installed packages need no trust.

    Raises:
        DataError: the file is not one, or is damaged, or names code and is not trusted.
    """
    path = home_expanded(Path(path))
    checkpoint = read_checkpoint(path)
    said = checkpoint.metadata
    if said.get("holds") != "network":
        raise DataError(f"A network is read from what `fed-lorac export --format safetensors` wrote; {path} is not.")
    with read_from(path):
        if not trust:
            _check_named(said["model"], path)
        network = build(said["model"], num_classes=len(json.loads(said["classes"])), **said_settings(said))
        # Files of before it was written down have CIFAR-10's, which was the only one.
        normalization = Normalization.parse(said.get("normalization", "cifar10"))
        deployed = Deployed.of(network, fold=said["batch_norm"].startswith(FOLDED), normalization=normalization)
    load_into(deployed.network, checkpoint, str(path))
    return deployed


def _check_named(model: str, path: Path) -> None:
    """A stranger's file is not to say what is imported: any function there is would do as "module:Name"."""
    if ":" in model:
        raise DataError(
            f"A file does not decide what code is run; {path} is of the network {model!r}, which is imported and "
            "called. If you know that code and who made the file, call load_network(path, trust=True); or register "
            "the code in its package, as an entry point of the group fed_lorac.models."
        )
