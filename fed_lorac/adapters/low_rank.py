"""Factor pairs on convolutions: what LoRA-C, conv LoRA and LoRAE share. Knows A and B, and by which exact route they
reach the output; not the view of the weight that they are drawn for, which is each method's.

The exact routes live here. "dense" runs one convolution with W + delta W; "thin" runs the same forward, and takes its
gradient straight to the factors (`algebra.thin`), so that no dense weight's gradient is formed. `faster_route` picks
between these two and times nothing itself: routes agree to rounding only, so a rule that looked at a clock, free memory
or the number of workers would change results. "two-step" runs the frozen W as it is and adds the branch
`conv1x1(conv(x, A'), B')`; it spares that gradient too, at more passes over the activations, and is there to compare
with. Under bf16 autocast dense and thin round W + delta W to bf16 (as full fine-tuning does to its W), the two-step
route rounds W and the factors apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, Self, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fed_lorac.adapters.algebra.factors import init_factors, two_step_kernels
from fed_lorac.adapters.algebra.thin import thin_conv2d
from fed_lorac.adapters.branches import Adapted, AdaptedConv2d, AdaptedLinear, Affine, Branch, Layer, scaled
from fed_lorac.adapters.conv_adapter import ConvAdapter
from fed_lorac.adapters.deltas import State, ToDelta, is_delta_already
from fed_lorac.errors import FactorError
from fed_lorac.runtime.settings import setting

__all__ = ["LoraConv2d", "LowRankAdapter", "RouteChoice", "faster_route"]

Route = Literal["dense", "two-step", "thin"]
RouteChoice = Literal["auto", "dense", "two-step", "thin"]


class _Factors(Adapted):
    """A layer that gains scale * reshape(B @ A), of which both are trained, or B alone."""

    A: Tensor  # (R, in*K_w), in the filter view (R, in*K_h*K_w), or kernel-wise (out, in, r, K_w)
    B: Tensor  # (out*K_h, R), in the filter view (out, R), or kernel-wise (out, in, K_h, r)
    scale: float  # alpha / r

    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        """scale * B @ A, (..., out*K, in*K) or another row-major view of the weight."""
        return (self.scale * own["B"]) @ own["A"]  # B is smaller than the product

    def read_own(self) -> dict[str, Tensor]:
        """A and B, or where A as it was drawn is kept, what A differs by from that."""
        found = super().read_own()
        return found | {"A": torch.add(found["A"], self._drawn(), alpha=-1.0)} if self._is_relative else found

    def load_own(self, came: Mapping[str, Tensor]) -> None:
        """The inverse."""
        added = {"A": torch.add(came["A"], self._drawn(), alpha=1.0)} if self._is_relative else {}
        super().load_own({**came, **added})

    @property
    def _is_relative(self) -> bool:
        return "drawn_A" in self.branch_frozen

    def _drawn(self) -> Tensor:
        return self.get_buffer("drawn_A").to("cpu", torch.float32)


class LoraLinear(_Factors, AdaptedLinear):
    """A linear layer with factors beside its frozen weight, at an end."""


class LoraConv2d(_Factors, AdaptedConv2d):
    """A convolution with factors beside its frozen weight: y = conv(x, W + scale * reshape(B @ A))."""

    route: RouteChoice

    def pick_route(self) -> Route:
        """The route the next forward takes: a fixed function of shapes, device type and whether gradients are on."""
        if self.route != "auto":
            return self.route
        if self.A.ndim == 4 or not torch.is_grad_enabled():
            return "dense"  # kernel-wise has no thin form; without a backward pass there is nothing to spare
        runs = self.B.shape[0] // self.out_channels  # K_h, and 1 in the filter view
        return faster_route(self.weight.shape, self.A.shape[0], self.weight.device.type, runs=runs)

    def convolve(self, input: Tensor, affine: Affine | None) -> Tensor:
        """The convolution with its delta, by the route that the rule picks."""
        route = self.pick_route() if self._is_plain(input, affine) or self.route == "two-step" else "dense"
        if route == "dense":
            return super().convolve(input, affine)
        weight = self.weight if route == "two-step" else self.effective_weight(self.own())
        weight, bias = scaled(weight, self.bias, affine)
        inner, outer = two_step_kernels(self.A, self.B, self.weight.shape, self.groups)
        outer, _ = scaled(outer * self.scale, None, None if affine is None else (affine[0], None))
        if route == "two-step":
            # _conv_forward brings this layer's stride, padding, dilation, padding mode and groups to A' as well.
            branch = F.conv2d(self._conv_forward(input, inner, None), outer, groups=self.groups)
            return self._conv_forward(input, weight, bias) + branch
        how = {"stride": self.stride, "padding": cast(tuple[int, ...], self.padding), "dilation": self.dilation}
        x, weight, inner, outer = (_as_autocast(t) for t in (input, weight, inner, outer))
        return thin_conv2d(x, weight, None if bias is None else _as_autocast(bias), inner, outer, **how)

    def _is_plain(self, input: Tensor, affine: Affine | None) -> bool:
        """Whether the factors are all that is trained here, and the convolution is PyTorch's plainest."""
        trained = [t for t in (self.weight, self.bias, *(affine or ())) if t is not None and t.requires_grad]
        plainest = self.groups == 1 and self.padding_mode == "zeros" and not isinstance(self.padding, str)
        return plainest and not trained and input.ndim == 4


def _as_autocast(tensor: Tensor) -> Tensor:
    """In the dtype that autocast, where it is on, gives a convolution's arguments."""
    device = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else tensor


@dataclass(frozen=True)
class LowRankAdapter(ConvAdapter):
    """A and B on every convolution but the first: delta W = scale * reshape(B @ A), B zero and A drawn at the start.

    State: "<conv>.A" and "<conv>.B", without the scale. Here they are of the "filter" view, A (r, in*K*K) and B
    (out, r), r filters and a 1x1 mapper; a method with another view draws others.
    """

    layer = LoraConv2d
    has_factors = True
    draws_anew = True
    state_is_delta = True

    rank: int = setting(2, "the rank setting r", least=1)
    relative: bool = field(default=False, kw_only=True)  # the state has of A what it differs by from A as it was drawn
    route: RouteChoice = field(default="auto", kw_only=True)  # for tests and benchmarks

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.route not in get_args(RouteChoice):
            raise FactorError(f"A route is one of {', '.join(get_args(RouteChoice))}; came {self.route!r}.")

    @property
    def branch_scale(self) -> float:
        """What a branch multiplies its B @ A by."""
        return 1.0

    @property
    def scale(self) -> float:
        """The branches': a state is without it."""
        return self.branch_scale

    def draw(self, weight: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Fresh factors (A, B) for a convolution's weight (out, in, K, K)."""
        return init_factors(weight.shape, self.rank, "filter", generator)

    def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
        """The freshly drawn A, and B of zeros."""
        return self._fresh(*self.draw(conv.weight, generator))

    def _fresh(self, A: Tensor, B: Tensor) -> Branch:
        settings = {"scale": self.branch_scale, "route": self.route}
        return Branch({"A": A, "B": B}, {"drawn_A": A} if self.relative else {}, settings)

    def kind_of(self, name: str, layer: nn.Module) -> type[Adapted]:
        """Where A is trained, at the ends too, what else carries factors."""
        if self.linear or name not in (self.thin or ()):
            return super().kind_of(name, layer)
        return LoraLinear if isinstance(layer, nn.Linear) else LoraConv2d

    def end_branch(self, layer: Layer, generator: torch.Generator) -> Branch:
        """A and B in the filter view, trained as the others are."""
        if self.linear:
            return super().end_branch(layer, generator)
        return self._fresh(*init_factors(layer.weight.shape, self.end_rank, "filter", generator))

    def relative_to_init(self) -> Self:
        """With a state that has, in the place of A, what it differs by from A as it was drawn."""
        return replace(self, relative=True)

    def to_delta(self, base: nn.Module, generator: torch.Generator) -> ToDelta:
        """A state is a delta as it stands, but for what was drawn of A where the state is relative to that.

        States may be of another rank than this adapter's: A is drawn as an adapter of theirs draws it.
        """
        if not self.relative:
            return is_delta_already
        start = generator.clone_state()

        @lru_cache
        def drawn(rank: int) -> dict[str, Tensor]:
            branches = replace(self, rank=rank).branches(base, start.clone_state())
            return {f"{name}.A": branch.trained["A"] for name, (_, branch) in branches.items()}

        def added(state: State) -> State:
            ends = {f"{name}.A" for name in self.thin or ()}
            inner = ((k, A.shape[-2]) for k, A in drawn(self.rank).items() if k in state and k not in ends)
            rows, own = next(((state[k].shape[-2], rows) for k, rows in inner), (1, 1))  # of none, any rank is right
            return _added(state, drawn(self.rank * rows // own))

        return added


def _added(state: State, drawn: State) -> dict[str, Tensor]:
    return {key: torch.add(value, drawn[key]) if key in drawn else value for key, value in state.items()}


# What more passes over the activations cost, in multiplications per channel and pixel: fitted.
_PASSES = 40
# Channels that a vector holds: a tensor of fewer costs as much as one of these.
_LANES = 16


def faster_route(
    weight_shape: Sequence[int], rank_rows: int, device: str = "cpu", *, runs: int = 0
) -> Literal["dense", "thin"]:
    """The faster exact route of one training step for a weight (out, in, K_h, K_w) and R = `rank_rows` rows of A. A
    grouped convolution takes the dense route whatever this says: none was measured.

    Thin where what it spares, the gradient of a dense weight, exceeds what it adds (both in multiplications per pixel):
    convolutions of K*R channels, rounded up to whole vectors of 16, 2*K*R*(in*K*K + out), and more passes over the
    activations, 40*(in + out). The constant is fitted to `benchmarks/lora_c_routes.py`: float32 and bf16 autocast,
    batch 50, channels-last, 1 thread of a busy 2-core AMD EPYC with AVX-512 and bf16, torch 2.15.0, 2026-11-21.
    Thin over dense, time of forward and backward:

        weight (out, in, K, K)        R=1          R=4          R=16         R=48
        (16, 16, 3, 3)                1.4 to 1.9   1.5 to 1.6   3.0 to 3.5   8 to 11
        (32, 32, 3, 3)                1.1 to 1.2   1.1 to 1.2   1.8          3.7 to 3.9
        (64, 64, 3, 3), 8 x 8         0.9          0.9          1.3          2.3 to 2.4
        (64, 64, 3, 3), 32 x 32       0.9          0.9          1.2 to 1.3   2.4 to 2.6
        (128, 128, 3, 3)              0.8          0.8          1.0          1.5
        (256, 256, 3, 3)              0.7          0.7          0.8          1.1
        (512, 512, 3, 3)              0.5 to 0.6   0.6          0.7          0.8
        (128, 64, 1, 1)               1.1 to 1.2   1.1 to 1.2   1.2
        (512, 256, 1, 1)              0.8 to 0.9   0.9          0.9
        (1024, 256, 1, 1)             0.7          0.7          0.7 to 0.8
        (512, 2048, 1, 1)             0.6 to 0.7   0.6 to 0.7   0.7

    In 198 measurements the rule picks the faster route 186 times; its time over the faster route's is 1.002 in the
    mean and 1.07 at worst (always dense: 1.13 and 2.3; always thin: 1.22 and 10.7). The last 24 of them, ResNet-50's,
    were made after it was set. The two-step forward took 1.16 times as long as thin in the mean, 0.88 at best.
    Only the CPU was measured: on other devices the route is the dense one, which launches fewest kernels.
    """
    out, in_, high, wide = (int(n) for n in weight_shape)
    spared, height = out * in_ * high * wide, -(-(runs or high) * rank_rows // _LANES) * _LANES
    added = 2 * height * (in_ * high * wide + out) + _PASSES * (in_ + out)
    return "thin" if device == "cpu" and spared > added else "dense"
