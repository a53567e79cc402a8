"""A run's network for stored images. Knows pixels and layers; not runs."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from fed_lorac.errors import DataError, one_line
from fed_lorac.export.deployed import Deployed
from fed_lorac.runtime.normalization import Normalization

__all__ = ["PixelNetwork"]


class PixelNetwork(nn.Module):
    """A plain network that takes images as data sets and `fed_lorac.corrupt` hold them: bytes, channels last.

    It normalizes them itself, as the run did. In eval mode, without gradients; `classes` names its outputs in order.
    """

    def __init__(self, network: nn.Module, normalization: Normalization, classes: Sequence[str]) -> None:
        super().__init__()
        self.deployed = Deployed.of(network, fold=False, normalization=normalization)
        self.classes = tuple(classes)
        self.eval()

    def forward(self, images: "UInt8[Tensor, 'n h w 3'] | UInt8[np.ndarray, 'n h w 3']") -> Float[Tensor, "n classes"]:
        """RGB images, a tensor or a NumPy array of uint8 (N, H, W, 3), to logits (N, classes), float32.

        Raises:
            DataError: they are of another type or shape, or no array at all.
        """
        pixels = _as_tensor(images)
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise DataError(
                f"Images are bytes of the shape (N, H, W, 3); got {pixels.dtype} {tuple(pixels.shape)}. Of floats from "
                "0 to 1, (N, 3, H, W), make them so: (255 * x).round().to(torch.uint8).permute(0, 2, 3, 1)."
            )
        logits: Tensor = self.deployed(pixels.to(self.deployed.mean.device).permute(0, 3, 1, 2).float())
        return logits


def _as_tensor(images: object) -> Tensor:
    """A flipped array, or one with its channels turned round, has strides that no tensor has: it is copied."""
    try:
        return torch.as_tensor(
            np.require(images, requirements=["C", "W"]) if isinstance(images, np.ndarray) else images
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"Images are an array of bytes of the shape (N, H, W, 3); got {type(images).__name__}, which makes no "
            f"tensor: {one_line(error)}. Make it an array: np.stack([np.asarray(image) for image in images])."
        ) from None
