"""One layer of N networks side by side. Knows layers, their tensors and a cameras' axis; not networks, steps or data.

Activations are (B, N*C, H, W): camera after camera along the channels, so whatever acts on each element or channel
passes unaltered, a batch norm over N*C channels has statistics per camera, and N convolutions are one with N times the
groups. A layer's own tensors are kept under their own names with the cameras' axis in front: (N, ...).

An adapter joins by giving its layer (a subclass of nn.Conv2d or nn.Linear) one method,
`effective_weight(own) -> Tensor`: the weight (..., *weight.shape) as a function of the layer's tensors by name, each
with any axes in front. See `Adapted`. Its settings (a scale) must show in `extra_repr`: equals are known by it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fed_lorac.adapters.branches import scaled
from fed_lorac.adapters.fold_bn import affine_of
from fed_lorac.adapters.own_forward import OwnForward
from fed_lorac.adapters.strided import unstrided
from fed_lorac.errors import RunError
from fed_lorac.models.cifar_resnet import IdentityShortcut

__all__ = ["Side", "SideBatchNorm", "SideConv2d", "SideLayerNorm", "effective_weight", "side_of"]


class Side(nn.Module):
    """N equal layers as one. `part`, where set, are the cameras (indices) that the next forward is of.

    `inner`: names of the modules in it that its forward calls, side by side too.
    """

    part: Tensor | None
    inner: ClassVar[tuple[str, ...]] = ()
    lenders: "tuple[Side, ...]" = ()
    """What lends its trained tensors to this one (`branches.Adapted.lenders`)."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        nn.Module.__init__(self)  # not that of a class which stands behind this one, and builds a network
        self.like, self.part = (layers[0],), None  # a tuple hides it from nn.Module: its tensors are not ours
        self.cameras = len(layers)
        self.train(layers[0].training)
        for name, own in layers[0].named_parameters(recurse=False):
            each = [layer.get_parameter(name) for layer in layers]
            self.register_parameter(name, nn.Parameter(_together(each), own.requires_grad))
        for name in self.kept_buffers(layers[0]):
            self.register_buffer(name, _together([layer.get_buffer(name) for layer in layers]))

    def kept_buffers(self, layer: nn.Module) -> list[str]:
        """Names of the buffers that the forward pass needs: what an adapter's `effective_weight` may ask for."""
        return [name for name, _ in layer.named_buffers(recurse=False)] if _adapted(layer) else []

    @property
    def count(self) -> int:
        """Cameras in the next forward, n."""
        return self.cameras if self.part is None else len(self.part)

    def own(self) -> dict[str, Tensor]:
        """This layer's tensors by name, (n, ...), of the cameras that take part."""
        lent = {name: side.get_parameter(name) for side in self.lenders for name in side.lent}
        tensors = lent | {k: t for k, t in (*self._parameters.items(), *self._buffers.items()) if t is not None}
        return tensors if self.part is None else {k: t.index_select(0, self.part) for k, t in tensors.items()}

    @property
    def lent(self) -> tuple[str, ...]:
        """Names of the tensors that it may lend."""
        return cast(tuple[str, ...], getattr(self.like[0], "branch_trained", ()))

    def by_camera(self, x: Tensor, features: int) -> Tensor:
        """(..., n*features) to (..., n, features); RunError where the last axis is another."""
        if x.shape[-1] != self.count * features:
            raise RunError(
                f"Side by side, a {type(self.like[0]).__name__} is called with every camera's features on the last "
                f"axis, {self.count} x {features}; came {tuple(x.shape)}. Set run.block_size = 1."
            )
        each: Tensor = x.unflatten(-1, (self.count, features))
        return each

    def keep(self, cameras: Tensor) -> None:
        """Go on with these cameras only."""
        for tensor in (*self.parameters(recurse=False), *self.buffers(recurse=False)):
            tensor.data, tensor.grad = tensor.data.index_select(0, cameras), None
        self.cameras = len(cameras)

    @torch.no_grad()
    def write_back(self, place: int, layer: nn.Module) -> None:
        """Put what training made of the camera at `place` into its own layer: its trained tensors."""
        for name, tensor in self.named_parameters(recurse=False):
            if tensor.requires_grad:
                layer.get_parameter(name).copy_(tensor[place])


class SideConv2d(Side):
    """N convolutions, each over its own camera's channels by its own effective weight."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, n*in, H, W) to (B, n*out, H', W')."""
        return self.convolve(x, None)

    def convolve(self, x: Tensor, affine: tuple[Tensor, Tensor] | None) -> Tensor:
        """The convolutions and then, where `affine` is (gain, shift), each (n*out,): y * gain + shift."""
        conv, own = cast(nn.Conv2d, self.like[0]), self.own()
        weight, bias = effective_weight(conv, own).flatten(0, 1), own.get("bias")
        weight, bias = scaled(weight, None if bias is None else bias.flatten(), affine)
        groups = conv.groups * self.count
        x, stride = unstrided(x, weight, conv.stride, conv.padding, groups)
        return F.conv2d(x, weight, bias, stride, conv.padding, conv.dilation, groups)


class SideLinear(Side):
    """N linear layers, each over its own camera's features, which are the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, n*in) to (B, n*out), or with more axes between."""
        if x.ndim > 2:
            flat = self.forward(x.flatten(0, -2))
            return flat.reshape(*x.shape[:-1], -1)
        own = self.own()
        weight = effective_weight(self.like[0], own)
        y = torch.matmul(self.by_camera(x, weight.shape[2]).transpose(0, 1), weight.transpose(1, 2))
        if "bias" in own:
            y = y + own["bias"][:, None]
        return y.transpose(0, 1).flatten(1)


class SideBatchNorm(Side):
    """N batch norms: one over all channels, in training mode (moving each camera's statistics) or eval mode."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)
        for name, statistics in self.named_buffers(recurse=False):
            self.register_buffer(name, statistics.contiguous())  # each camera's own memory, to be moved in place

    def gain_and_shift(self) -> tuple[Tensor, Tensor]:
        """Gain and shift, each (n*C,), of norms in eval mode."""
        return affine_of(cast(nn.BatchNorm2d, self.like[0]), {k: t.flatten() for k, t in self.own().items()})

    def kept_buffers(self, layer: nn.Module) -> list[str]:
        """The running statistics, and of how many batches they are."""
        return [name for name, _ in layer.named_buffers(recurse=False)]

    def forward(self, x: Tensor) -> Tensor:
        """(B, n*C, ...) to the same shape."""
        norm, own = cast(nn.BatchNorm2d, self.like[0]), {k: t.flatten() for k, t in self.own().items()}
        mean, var = own.get("running_mean"), own.get("running_var")
        batch = self.training or mean is None
        y = F.batch_norm(x, mean, var, own.get("weight"), own.get("bias"), batch, norm.momentum or 0.0, norm.eps)
        if batch and self.part is not None and mean is not None and var is not None:
            for name, moved in (("running_mean", mean), ("running_var", var)):
                self.get_buffer(name).index_copy_(0, self.part, moved.view(self.count, -1))
        if self.training and "num_batches_tracked" in own:
            tracked = self.get_buffer("num_batches_tracked")
            tracked[slice(None) if self.part is None else self.part] += 1
        return y

    def write_back(self, place: int, layer: nn.Module) -> None:
        """The trained tensors and, where batches moved them, the statistics and their count."""
        super().write_back(place, layer)
        for name, tensor in self.named_buffers(recurse=False) if self.training else ():
            layer.get_buffer(name).copy_(tensor[place])


class SideGroupNorm(Side):
    """N group norms: one with N times the groups, none of which spans two cameras."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, n*C, ...) to the same shape."""
        norm, own = cast(nn.GroupNorm, self.like[0]), {k: t.flatten() for k, t in self.own().items()}
        return F.group_norm(x, norm.num_groups * self.count, own.get("weight"), own.get("bias"), norm.eps)


class SideLayerNorm(Side):
    """N layer norms, each over its own camera's features, which are the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, ..., n*C) to the same shape."""
        norm, own = cast(nn.LayerNorm, self.like[0]), self.own()
        y = F.layer_norm(self.by_camera(x, norm.normalized_shape[0]), norm.normalized_shape, eps=norm.eps)
        y = y * own["weight"] if "weight" in own else y
        return (y + own["bias"] if "bias" in own else y).flatten(-2)


class SideShortcut(Side):
    """N identity shortcuts: every camera's channels get their own zeros."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, n*in, H, W) to (B, n*out, H/stride, W/stride); laid out channels-last, as its neighbours are."""
        one = cast(IdentityShortcut, self.like[0])
        last = x.permute(0, 2, 3, 1)[:, :: one.stride, :: one.stride]
        before = one.new_channels // 2
        each = last.unflatten(3, (self.count, -1))
        return F.pad(each, (before, one.new_channels - before)).flatten(3).permute(0, 3, 1, 2)


def side_of(layer: nn.Module) -> Callable[[Sequence[nn.Module]], Side] | None:
    """What puts layers like this one side by side; None where nothing here can."""
    if isinstance(layer, OwnForward) or (isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros"):
        return None
    if isinstance(layer, _BatchNorm) and layer.training and (layer.momentum is None or _holds_still(layer)):
        return None  # a cumulative mean moves at a pace of the camera's own count
    if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) > 1:
        return None  # over more than the features
    if _adapted(layer):
        return SideConv2d if isinstance(layer, nn.Conv2d) else SideLinear if isinstance(layer, nn.Linear) else None
    return _SIDES.get(type(layer))


_SIDES: dict[type[nn.Module], Callable[[Sequence[nn.Module]], Side]] = {
    nn.Conv2d: SideConv2d,
    nn.Linear: SideLinear,
    nn.BatchNorm1d: SideBatchNorm,
    nn.BatchNorm2d: SideBatchNorm,
    nn.GroupNorm: SideGroupNorm,
    nn.LayerNorm: SideLayerNorm,
    IdentityShortcut: SideShortcut,
}


def _holds_still(norm: _BatchNorm) -> bool:
    """Whether batches leave the statistics as they are, though it has some."""
    return norm.running_mean is not None and not norm.track_running_stats


def _adapted(layer: nn.Module) -> bool:
    return hasattr(layer, "effective_weight")


def effective_weight(layer: nn.Module, own: Mapping[str, Tensor]) -> Tensor:
    """What a convolution or linear layer multiplies by: (..., *weight.shape), given its tensors with axes in front."""
    return cast(Tensor, layer.effective_weight(own)) if _adapted(layer) else own["weight"]  # type: ignore[operator]


def _together(tensors: Sequence[Tensor]) -> Tensor:
    """(N, ...); what is frozen and the same for all is kept once."""
    first = tensors[0].detach()
    if not tensors[0].requires_grad and all(t is tensors[0] or torch.equal(t, first) for t in tensors[1:]):
        return first.expand(len(tensors), *first.shape)
    return torch.stack([t.detach() for t in tensors])
