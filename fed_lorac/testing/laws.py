"""The message for a law that does not hold, and what several checks share. Knows tensors; not which laws there are."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fed_lorac.seeds import torch_stream

__all__ = ["distance", "equal", "moved", "small_model", "told", "under"]


def under(law: str, holds: object, came: object = "") -> None:
    """Raise AssertionError with the law, and what came, unless it holds."""
    if not holds:
        raise AssertionError(f"{law}; got {str(came).removesuffix('.')}." if str(came) else f"{law}.")


def told(part: object, law: str) -> str:
    """A law with the name of the part that it is asked of."""
    name = part if isinstance(part, str) else getattr(part, "__name__", type(part).__name__)
    return f"{name}: {law}"


def small_model(num_classes: int = 10) -> nn.Module:
    """A plain ResNet-8 of width 4 with drawn weights, in float64 and evaluation mode."""
    from fed_lorac.models import build  # noqa: PLC0415 - a check may be given another network

    return build("resnet8", num_classes=num_classes, width=4).double().eval()


def moved(model: nn.Module, stream: int = 0, share: float = 0.1) -> nn.Module:
    """The same network, its trained parameters moved by normal noise of this deviation: as if it had trained."""
    draw = torch_stream(stream, "moved")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
                parameter.add_(share * noise.to(parameter))
    return model


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """The same names, and the same numbers to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def distance(one: Tensor, other: Tensor) -> float:
    """||one - other|| / ||other||, in float64; where other is zero, ||one||."""
    found, expected = one.detach().double(), other.detach().double()
    norm = float(torch.linalg.vector_norm(expected))
    return float(torch.linalg.vector_norm(found - expected)) / (norm or 1.0)
