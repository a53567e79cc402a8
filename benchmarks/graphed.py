"""A step as one CUDA graph: forward pass, loss and backward pass are recorded once, and started as one from then on.

benchmarks/graphed.py is the arm of `python benchmarks/blocks.py --graphed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fed_lorac.training.objectives.objective import Batch, Labels, Losses

__all__ = ["GraphedLabels"]

_WARM = 3  # passes before recording, in which libraries choose their algorithms (PyTorch's notes on CUDA graphs)


@dataclass(frozen=True)
class GraphedLabels(Labels):
    """`Labels` whose gradients come from a recorded graph: one for each size of batch and set of networks at work.

    What makes a batch of images, and the optimizer, are outside. Without a GPU each pass is computed as ever, on the
    same lasting tensors, so that all but the recording can be tested.
    """

    recorded: dict[tuple[object, ...], "_Recorded"] = field(default_factory=dict)

    def gradients(self, batch: Batch) -> Losses:
        """Copy the batch into the graph's own tensors, and start it."""
        parameters, images, labels = batch.learners.side.parameters, batch.images, batch.labels
        key = (images.shape, *map(id, parameters))
        if (found := self.recorded.get(key)) is None:
            found = self.recorded[key] = _Recorded(batch, parameters, images.clone(), labels.clone())
        found.images.copy_(images)
        found.labels.copy_(labels)
        return Losses(found.start())


class _Recorded:
    def __init__(self, batch: Batch, parameters: Sequence[nn.Parameter], images: Tensor, labels: Tensor) -> None:
        self._batch, self._parameters, self.images, self.labels = batch, parameters, images, labels
        self._graph: torch.cuda.CUDAGraph | None = None
        if images.is_cuda:
            self._record()

    def _record(self) -> None:
        network = self._batch.learners.side.network
        before = {name: buffer.clone() for name, buffer in network.named_buffers()}
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM):
                self._pass()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        self._clear()
        with torch.cuda.graph(graph):
            self._losses = self._pass()
        self._gradients = [p.grad for p in self._parameters]
        for name, buffer in network.named_buffers():
            buffer.copy_(before[name])  # running statistics, which the passes above have moved
        self._graph = graph

    def start(self) -> Tensor:
        """The losses, (n,); each parameter's gradient is where the optimizer looks for it."""
        if self._graph is None:
            return self._pass()
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._losses.clone()

    def _pass(self) -> Tensor:
        self._clear()
        with self._batch.arithmetic():
            logits = self._batch.logits_of(self.images)
            each = nn.functional.cross_entropy(logits.flatten(0, 1), self.labels.flatten(), reduction="none")
            losses = each.view(self.labels.shape).mean(0)
        losses.sum().backward()
        return losses.detach()

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
