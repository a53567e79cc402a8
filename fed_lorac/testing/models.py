"""The laws of a network for cameras: it classifies images, it can be adapted and trained, and builds the same twice."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fed_lorac.adapters.plain import check_plain
from fed_lorac.errors import ConfigError, FactorError, one_line
from fed_lorac.models import build
from fed_lorac.models.fingerprints import fingerprint, named_tensors
from fed_lorac.seeds import torch_stream
from fed_lorac.testing.laws import told, under

__all__ = ["check_model"]


def check_model(
    model: str | Callable[..., nn.Module], *, num_classes: int = 7, image_size: int = 32, **settings: object
) -> None:
    """Hold a network's maker to its laws.

    Args:
        model: a name ("resnet8", "my_package.nets:small") or a function, `(num_classes, **settings) -> nn.Module`.
        num_classes: what is asked of it.
        image_size: pixels a side of its images (N, 3, image_size, image_size).
        settings: its own.

    Raises:
        AssertionError: a law is broken; it says which, and what came.
    """

    def law(text: str, holds: object, came: object = "") -> None:
        under(told(model, text), holds, came)

    def made() -> nn.Module:
        try:
            return build(name, num_classes=num_classes, **own)
        except ConfigError as error:
            raise AssertionError(told(model, one_line(error))) from error

    name = model if isinstance(model, str) else f"{model.__module__}:{model.__qualname__}"
    own: dict[str, Any] = dict(settings)
    network, images = made(), torch.rand((4, 3, image_size, image_size), generator=torch_stream(0, "images"))
    prints = [fingerprint(named_tensors(one)) for one in (network, made())]
    law("equal seeds must build equal weights", prints[0] == prints[1])
    try:
        check_plain(network)
    except FactorError as error:
        law("an adapter must be able to change its layers", False, error)
    network.eval()
    with torch.no_grad():
        logits = network(images)
        law("logits must have the shape (images, classes)", logits.shape == (4, num_classes), tuple(logits.shape))
        law("logits must be finite", bool(logits.isfinite().all()))
        alone = torch.cat([network(image[None]) for image in images])
    law("in evaluation an image's logits must not depend on the others", torch.allclose(logits, alone, atol=1e-4))
    network.train()
    nn.functional.cross_entropy(network(images), torch.arange(4) % num_classes).backward()  # type: ignore[no-untyped-call]
    missed = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    law("every trained parameter must get a gradient", not missed, missed[:5])
    twin = made()
    try:
        twin.load_state_dict(network.state_dict())
    except RuntimeError as error:
        law("a state_dict must load into a twin", False, one_line(error))
