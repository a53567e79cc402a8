"""Small networks of many kinds, plain and not, for tests of adapters and of folding; and all there is to see of one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from fed_lorac.seeds import torch_stream
from fed_lorac.training.accuracy import batch_norms

__all__ = [
    "LAYERS",
    "NOT_PLAIN",
    "TIED",
    "Drawn",
    "NormAct",
    "Zoo",
    "all_of",
    "drawn",
    "images",
    "other_statistics",
    "settled",
    "zoo",
]


class NormAct(nn.BatchNorm2d):
    """A batch norm with an activation inside, as timm's BatchNormAct2d."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(super().forward(input))


NORMS: Mapping[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm2d(4),
    "batch, activation inside": lambda: NormAct(4),
    "batch, synchronised": lambda: nn.SyncBatchNorm(4),
    "batch, no statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "batch, cumulative": lambda: nn.BatchNorm2d(4, momentum=None),
    "batch, no affine": lambda: nn.BatchNorm2d(4, affine=False),
    "instance": lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "group": lambda: nn.GroupNorm(2, 4),
    "none": nn.Identity,
}


@dataclass(frozen=True)
class Drawn:
    """What varies in a Zoo."""

    norm: str = "batch"
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    padding: int | str = 1
    padding_mode: str = "zeros"
    bias: bool = False
    hooks: str = ""


drawn: st.SearchStrategy[Drawn] = st.builds(
    Drawn,
    norm=st.sampled_from(sorted(NORMS)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.sampled_from([0, 1, "valid"]),
    padding_mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    bias=st.booleans(),
    hooks=st.sampled_from(["", "before", "after", "around"]),
)


class Zoo(nn.Module):
    """Convolutions with norms after them, one of which is called twice, and a classifier."""

    def __init__(self, d: Drawn) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, bias=d.bias)
        self.norm1 = NORMS[d.norm]()
        how = {"dilation": d.dilation, "padding": d.padding, "padding_mode": d.padding_mode, "bias": d.bias}
        self.mid = nn.Conv2d(4, 4, d.kernel, d.stride, **how)  # type: ignore[arg-type]
        self.norm2 = NORMS[d.norm]()
        self.twice = nn.Conv2d(4, 4, 3, padding=1, bias=d.bias)
        self.last = nn.Conv2d(4, 4, 1, bias=d.bias)
        self.norm3 = NORMS[d.norm]()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.first(x)))
        x = self.norm2(self.mid(x))
        x = self.twice(F.relu(self.twice(x)))
        x = self.norm3(self.last(x))
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


def _double(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return 2 * output


def _shift(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    return (args[0] + 0.5,)


@torch.no_grad()
def other_statistics(model: nn.Module, draw: torch.Generator, *, fixed: bool) -> None:
    """Give a network's batch norms drawn statistics, in training mode unless they are `fixed`."""
    for _, one in batch_norms(model):
        cast(Tensor, one.running_var).uniform_(0.5, 2.0, generator=draw)
        cast(Tensor, one.running_mean).normal_(0.0, 0.3, generator=draw)
        one.train(not fixed)


def settled(model: nn.Module) -> nn.Module:
    """In eval mode, with norms' tensors that are not those of a fresh network."""
    draw = torch_stream(1, "norms")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                for tensor, low, high in (
                    (module.running_mean, -0.3, 0.3),
                    (module.running_var, 0.5, 2.0),
                    (module.weight, 0.5, 1.5),
                    (module.bias, -0.3, 0.3),
                ):
                    if tensor is not None:
                        tensor.uniform_(low, high, generator=draw)
    return model.eval()


def zoo(d: Drawn | None = None) -> Zoo:
    """A Zoo with weights from a stream of its own, in eval mode."""
    d = d or Drawn()
    model, draw = Zoo(d), torch_stream(0, "zoo")
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(-0.5, 0.5, generator=draw)
    if d.hooks in ("before", "around"):
        model.mid.register_forward_pre_hook(_shift)
    if d.hooks in ("after", "around"):
        model.mid.register_forward_hook(_double)
        model.norm3.register_forward_hook(_double)
    settled(model)
    return model


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, 3, 12, 12, generator=torch_stream(0, "images"), dtype=dtype)


def all_of(model: nn.Module) -> dict[str, Any]:
    """All there is to see of a network: which objects, of which classes, hold which attributes and values."""
    seen = {}
    for name, module in model.named_modules(remove_duplicate=False):
        held = {key: _told(value) for key, value in vars(module).items()}
        seen[name] = (id(module), type(module), held)
    return seen


def _told(value: Any) -> Any:
    if isinstance(value, Tensor):
        known = not value.is_meta and not nn.parameter.is_lazy(value) and value.layout == torch.strided
        numbers = value.detach().dequantize().tolist() if known and value.is_quantized else None
        numbers = value.detach().tolist() if known and not value.is_quantized else numbers
        return id(value), type(value), value.requires_grad, value.grad if value.is_leaf else None, numbers
    if isinstance(value, dict):
        return {key: _told(part) for key, part in value.items()}
    return id(value) if isinstance(value, nn.Module) else repr(value)


def _tie_parameter(m: Zoo) -> None:
    m.twice.weight = m.mid.weight


def _tie_to_first(m: Zoo) -> None:
    m.mid = nn.Conv2d(3, 4, 3)  # never run: of the first convolution's shape
    m.mid.weight = m.first.weight


def _tie_to_classifier(m: Zoo) -> None:
    m.last.weight = nn.Parameter(m.fc.weight.view(4, 4, 1, 1))


def _tie_memory(m: Zoo) -> None:
    m.twice.weight = nn.Parameter(m.mid.weight.detach())


def _tie_part(m: Zoo) -> None:
    m.first.bias = nn.Parameter(m.fc.bias.detach().flatten()[:4])


def _tie_layer(m: Zoo) -> None:
    m.mid = m.twice


def _tie_block(m: Zoo) -> None:
    m.block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
    m.other = m.block


def _tie_norm(m: Zoo) -> None:
    m.norm2 = m.norm3


def _tie_norm_without_affine(m: Zoo) -> None:
    m.norm2 = m.norm3 = nn.BatchNorm2d(4, affine=False)


def _tie_buffer(m: Zoo) -> None:
    m.register_buffer("kernels", m.mid.weight.detach())


TIED: Mapping[str, tuple[Callable[[Zoo], None], tuple[str, str]]] = {
    "two convolutions": (_tie_parameter, ("mid.weight", "twice.weight")),
    "the first convolution and a branch": (_tie_to_first, ("first.weight", "mid.weight")),
    "a convolution and the classifier": (_tie_to_classifier, ("last.weight", "fc.weight")),
    "memory alone": (_tie_memory, ("mid.weight", "twice.weight")),
    "a part of the memory": (_tie_part, ("first.bias", "fc.bias")),
    "a layer under two names": (_tie_layer, ("mid", "twice")),
    "a block under two names": (_tie_block, ("block.0", "other.0")),
    "a norm under two names": (_tie_norm, ("norm2", "norm3")),
    "a norm without parameters under two names": (_tie_norm_without_affine, ("norm2", "norm3")),
    "a buffer on a weight": (_tie_buffer, ("mid.weight", "kernels")),
}
"""What is tied -> how, and the two names that an error is to say."""


class Doubled(nn.Module):
    """A parametrization of one's own."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def _as_tensor(layer: nn.Module) -> None:
    value = layer.weight.detach().clone()  # type: ignore[operator, union-attr]
    del layer.weight
    layer.weight = value


def _as_buffer(layer: nn.Module) -> None:
    value = layer.weight.detach().clone()  # type: ignore[operator, union-attr]
    del layer.weight
    layer.register_buffer("weight", value)


def _weight_like(make: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], None]:
    def replace(layer: nn.Module) -> None:
        layer.weight = nn.Parameter(make(layer.weight.detach()), requires_grad=False)  # type: ignore[operator, union-attr]

    return replace


def _made_in_inference_mode(layer: nn.Module) -> None:
    with torch.inference_mode():
        layer.weight = nn.Parameter(layer.weight.detach().clone())  # type: ignore[operator, union-attr]


class Marked(Tensor):
    """A tensor of another kind."""


LAYERS = ("first", "mid", "fc")
"""A Zoo's layers that an adapter trains as they are, or through a branch."""

NOT_PLAIN: Mapping[str, tuple[Callable[[nn.Module], Any], str]] = {
    "pruned": (lambda m: prune.l1_unstructured(m, "weight", 0.3), 'prune.remove(layer, "weight")'),
    "pruned twice": (
        lambda m: prune.random_unstructured(prune.ln_structured(m, "weight", 0.3, 2, 0), "weight", 0.2),
        'prune.remove(layer, "weight")',
    ),
    "pruned bias": (lambda m: prune.random_unstructured(m, "bias", 0.5), 'prune.remove(layer, "bias")'),
    "weight norm, old": (weight_norm, 'remove_weight_norm(layer, "weight")'),
    "weight norm, new": (parametrizations.weight_norm, 'remove_parametrizations(layer, "weight")'),
    "spectral norm, old": (spectral_norm, 'remove_spectral_norm(layer, "weight")'),
    "spectral norm, new": (parametrizations.spectral_norm, 'remove_parametrizations(layer, "weight")'),
    "parametrized": (
        lambda m: parametrize.register_parametrization(m, "weight", Doubled()),
        'remove_parametrizations(layer, "weight")',
    ),
    "parametrized bias": (
        lambda m: parametrize.register_parametrization(m, "bias", Doubled()),
        'remove_parametrizations(layer, "bias")',
    ),
    "a plain tensor": (_as_tensor, "nn.Parameter"),
    "a buffer": (_as_buffer, "nn.Parameter"),
    "integers": (_weight_like(lambda w: w.to(torch.int8)), "float32"),
    "complex": (_weight_like(lambda w: w.to(torch.complex64)), "float32"),
    "eight-bit floats": (_weight_like(lambda w: w.to(torch.float8_e4m3fn)), "float32"),
    "quantized": (_weight_like(lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8)), "float32"),
    "sparse": (_weight_like(lambda w: w.to_sparse()), "dense"),
    "a tensor's subclass": (_weight_like(lambda w: w.as_subclass(Marked)), "dense"),
    "without a value": (_weight_like(lambda w: w.to("meta")), "Load them first"),
    "made in inference mode": (_made_in_inference_mode, "Outside that mode"),
}
"""What a layer's weight (or bias) may be -> how, and a word of the remedy."""
