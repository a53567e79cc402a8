"""What PyTorch is asked for beneath autograd: convolutions, and which gradients of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Convolutions"]


class Convolutions(TorchDispatchMode):
    """Counts, while open. `forward`: the input's channels of every convolution; `backward`: of each one's backward
    pass, its weight's shape, and whether the gradients of input, weight and bias were computed."""

    def __init__(self) -> None:
        super().__init__()
        self.forward: list[int] = []
        self.backward: list[tuple[tuple[int, ...], tuple[bool, ...]]] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.forward.append(args[0].shape[1])
        if func is torch.ops.aten.convolution_backward.default:
            self.backward.append((tuple(args[2].shape), tuple(args[-1])))
        return func(*args, **(kwargs or {}))
