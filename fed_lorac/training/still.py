"""What draws random numbers in a network stays off while it is trained. Knows kinds of layers; not cameras or steps.

Dropout, stochastic depth and their like draw from PyTorch's one global generator. A camera's result would hang on all
that drew before it: on the number of workers, the order of cameras and which of them train side by side. So they pass
everything on, as they do when a network is used. LoRA-C's recipe, and federated fine-tuning of a trained base with few
parameters, have none of them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

__all__ = ["draws", "still"]

_NAMES = ("StochasticDepth", "DropPath", "DropBlock2d")  # torchvision's and timm's, which take a second to import


def draws(module: nn.Module) -> bool:
    """Whether a module of this kind draws random numbers in training mode."""
    return isinstance(module, _DropoutNd | nn.RReLU) or type(module).__name__ in _NAMES


@contextmanager
def still(models: Sequence[nn.Module]) -> Iterator[None]:
    """While open, all that draws is in eval mode; then each has its own mode again."""
    on = [module for model in models for module in model.modules() if module.training and draws(module)]
    for module in on:
        module.eval()
    try:
        yield
    finally:
        for module in on:
            module.train()
