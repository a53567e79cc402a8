"""The optimizer of networks side by side. Knows tensors, a row for each camera; not networks, steps or data.

Tensors are (N, ...): norms, clipping, momentum and learning rates are per row, so no camera's step depends on
another's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Sgd"]


@dataclass(eq=False)
class Sgd:
    """Momentum (Nesterov's or not), decay and clipping as torch.optim.SGD and clip_grad_norm_ do them, row by row.

    `prox`: FedProx's mu (arXiv 1812.06127, equation 2): the loss has mu/2 ||w - w_0||^2 besides, w_0 being where each
    tensor was at the first step.
    """

    decays: Sequence[float]
    momentum: float
    nesterov: bool
    clip_norm: float
    prox: float = 0.0

    def __post_init__(self) -> None:
        self._moving: list[Tensor | None] = [None] * len(self.decays)
        self._starts: list[Tensor | None] = [None] * len(self.decays)

    @torch.no_grad()
    def step(self, trained: Sequence[tuple[Tensor, Tensor | None]], lrs: Sequence[float]) -> None:
        """Move every tensor that has a gradient; `lrs`: one for each row. Gradients are used up."""
        live = [(place, tensor, grad) for place, (tensor, grad) in enumerate(trained) if grad is not None]
        if not live:
            return
        tensors, grads = [tensor for _, tensor, _ in live], [grad for _, _, grad in live]
        if self.prox:
            self._pull(live)
        if not math.isinf(self.clip_norm):
            _clip(grads, self.clip_norm)
        for decay in sorted({self.decays[place] for place, _, _ in live} - {0.0}):
            decayed = [(grad, tensor) for place, tensor, grad in live if self.decays[place] == decay]
            torch._foreach_add_([grad for grad, _ in decayed], [tensor for _, tensor in decayed], alpha=decay)
        if self.momentum:
            grads = self._moved([place for place, _, _ in live], grads)
        if len(set(lrs)) == 1:
            torch._foreach_add_(tensors, grads, alpha=-lrs[0])
        else:
            rates = torch.tensor(lrs, dtype=tensors[0].dtype, device=tensors[0].device)
            torch._foreach_sub_(tensors, torch._foreach_mul(grads, [_rows(rates, g) for g in grads]))

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        for kept in (self._moving, self._starts):
            kept[:] = [None if t is None else t.index_select(0, rows.to(t.device)) for t in kept]

    def _pull(self, live: Sequence[tuple[int, Tensor, Tensor]]) -> None:
        """Add mu (w - w_0) to the gradients."""
        for place, tensor, grad in live:
            if (start := self._starts[place]) is None:
                self._starts[place] = tensor.clone()  # here w is w_0
            else:
                grad.add_(tensor - start, alpha=self.prox)

    def _moved(self, places: Sequence[int], grads: list[Tensor]) -> list[Tensor]:
        for place, grad in zip(places, grads, strict=True):
            if self._moving[place] is None:
                self._moving[place] = torch.zeros_like(grad)
        moving = [m for place in places if (m := self._moving[place]) is not None]
        torch._foreach_mul_(moving, self.momentum)
        torch._foreach_add_(moving, grads)
        if self.nesterov:
            torch._foreach_add_(grads, moving, alpha=self.momentum)
            return grads
        return moving


def _clip(grads: list[Tensor], clip_norm: float) -> None:
    """Scale each row's gradient, all tensors taken together, down to `clip_norm` where its norm is larger."""
    each = [torch.linalg.vector_norm(g, dim=tuple(range(1, g.ndim))) for g in grads]
    factor = (clip_norm / (torch.linalg.vector_norm(torch.stack(each), dim=0) + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(grads, [_rows(factor, g) for g in grads])


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
