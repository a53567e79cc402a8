"""Weights that a network's authors publish: where their file is, and what it was trained behind. Knows files and
addresses; not layers."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from fed_lorac.errors import DataError
from fed_lorac.runtime.normalization import Normalization

__all__ = ["Published", "fetched"]


@dataclass(frozen=True)
class Published:
    """A file of weights for ImageNet's classes: its address, its name in PyTorch's folder, and the normalisation of its
    training."""

    url: str
    file: str
    normalization: Normalization

    @property
    def path(self) -> Path:
        """Where it is looked for: `$TORCH_HOME/hub/checkpoints`."""
        return Path(torch.hub.get_dir(), "checkpoints", self.file)

    @property
    def hash_prefix(self) -> str | None:
        """The first digits of its SHA-256, which end a name of torchvision's."""
        found = re.search(r"-([0-9a-f]{8,})\.pth$", self.file)
        return found[1] if found else None


def fetched(weights: Published) -> Path:
    """The file, downloaded where it is not there yet.

    Raises:
        DataError: it is neither there nor can it be downloaded; the message says what to put where.
    """
    if weights.path.exists():
        return weights.path
    try:
        weights.path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(weights.path), weights.hash_prefix)
    except (OSError, RuntimeError) as cause:  # no network or no room; bytes of another hash
        raise DataError(
            f"ImageNet weights are downloaded on first use, which failed: {cause}. Fetch {weights.url} on another "
            f"machine and put it at {weights.path}, or set model.weights to a checkpoint of yours."
        ) from None
    return weights.path
