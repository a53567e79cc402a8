"""Targets: the layers of a network that an adapter changes. Knows layers' types, kernels and order; alters nothing.

Everything that attach refuses is refused here, before the first layer is touched.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.conv import _ConvNd

from fed_lorac.adapters.plain import check_plain
from fed_lorac.errors import FactorError
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.runtime.settings import items

__all__ = [
    "ALL_LAYERS",
    "AUTO_LAYERS",
    "auto_rank_mode",
    "branch_targets",
    "check_end",
    "classifier_of",
    "ends_of",
    "first_conv_of",
    "named_by",
]

ALL_LAYERS = "all"
"""What stands for every layer that an adapter can change."""

AUTO_LAYERS = "auto"
"""What stands for those that the server of a run chooses (`choice`)."""

_TOLD = 40  # layers that an error names


def auto_rank_mode(model: nn.Module) -> str:
    """The paper's "auto": "r" for networks of bottleneck blocks (ResNet-50 and up), "r*k" for all others.

    The paper draws the line at ResNet-50, where blocks turn from basic (3x3-3x3) to bottleneck (1x1-3x3-1x1). So the
    block decides, not the depth or a name: one module whose own convolutions run 1x1, KxK, 1x1 makes it "r". CIFAR
    ResNets (8 to 56 and deeper) have basic blocks, hence "r*k". A convolution counts as a block's own where it stands
    in it with no other, beside its norm and activation: so the inverted bottlenecks of MobileNet and EfficientNet are
    bottlenecks too.
    """
    return "r" if any(_is_bottleneck(module) for module in model.modules()) else "r*k"


def _is_bottleneck(block: nn.Module) -> bool:
    convs = [[m for m in child.modules() if isinstance(m, nn.Conv2d)] for child in block.children()]
    sizes = [max(own[0].kernel_size) for own in convs if len(own) == 1]
    return any(a == 1 and b > 1 and c == 1 for a, b, c in zip(sizes, sizes[1:], sizes[2:], strict=False))


def branch_targets(model: nn.Module, *, need_classifier: bool) -> tuple[str, ...]:
    """Names of the convolutions that can carry a branch, in the network's order: every one but the first, and but the
    last where that is the classifier, which is trained as it is.

    FactorError for a network that is not plain (`plain.check_plain`) or has none of these; it names the first
    convolution that cannot carry a branch.
    """
    check_plain(model)
    convs = {name: module for name, module in model.named_modules() if isinstance(module, _ConvNd)}
    ends = {next(iter(convs), ""), classifier_of(model) if need_classifier and convs else ""}
    inner = {name: conv for name, conv in convs.items() if name not in ends}
    if not inner:
        beside = " and the classifier, the last nn.Linear or else the last convolution," if need_classifier else ""
        raise FactorError(
            f"Every convolution but the first{beside} carries a branch; this network has {len(convs)} in all. Choose "
            "norm-affine, linear-probe or full, which need none"
            + (", or attach with train_classifier=False." if need_classifier and len(convs) > 1 else ".")
        )
    for name, conv in inner.items():
        _refuse_unfit(name, conv)
    return tuple(inner)


def check_end(model: nn.Module, name: str) -> None:
    """FactorError where the layer at an end, the first convolution or the classifier, can carry no branch."""
    _refuse_unfit(name, model.get_submodule(name))


def named_by(patterns: str, layers: Sequence[str]) -> tuple[str, ...]:
    """Those of `layers` that are named, in their order: all of them, or by names and shell-style patterns with commas
    between, such as "layer1.*, layer2.0.conv?". A star stands for any text, dots too.

    FactorError for a pattern that names none of them.
    """
    if patterns == ALL_LAYERS:
        return tuple(layers)
    if patterns == AUTO_LAYERS:
        raise FactorError(f"Only the server of a run chooses layers; name them here. There are {_told(layers)}.")
    found: set[str] = set()
    for pattern in items(patterns):
        named = {name for name in layers if name == pattern or fnmatchcase(name, pattern)}
        if not named:
            raise FactorError(
                f"Each pattern of adapter.layers names layers that can be adapted; {pattern!r} names none here."
                f"{did_you_mean(pattern, layers)} There are {_told(layers)}."
            )
        found |= named
    return tuple(name for name in layers if name in found)


def _told(layers: Sequence[str]) -> str:
    more = f" and {len(layers) - _TOLD} more" if len(layers) > _TOLD else ""
    return ", ".join(layers[:_TOLD]) + more


def _refuse_unfit(name: str, conv: nn.Module) -> None:
    law = "A branch needs an nn.Conv2d, or a subclass with a forward of its own"
    if how := {"forward", "_conv_forward"} & vars(conv).keys():
        raise FactorError(
            f"{law}; layer {name!r} has a {min(how)} of its own, set on the object, which would pass its branch by. "
            "Make it a subclass's method, or delete it from the object."
        )
    if isinstance(conv, nn.Linear):
        return
    if not isinstance(conv, nn.Conv2d) or type(conv)._conv_forward is not nn.Conv2d._conv_forward:
        raise FactorError(
            f"{law}; layer {name!r} is a {type(conv).__name__}. Detach what was attached to it, or choose a network "
            "of 2-D convolutions: transposed, 1-D and 3-D ones carry none, nor does a class with its own _conv_forward."
        )
    said = (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size)
    if conv.weight.shape != said:
        raise FactorError(
            f"{law}; layer {name!r} says that its weight is {said}, and it is {tuple(conv.weight.shape)}. Was it cut "
            "to a smaller one? Put a convolution of that size in its place."
        )


def ends_of(model: nn.Module, *, first_conv: bool, classifier: bool) -> list[str]:
    """Names of the weights at a network's ends that are trained as they are, where asked."""
    found = [first_conv_of(model)] if first_conv else []
    return [f"{name}.weight" for name in ([*found, classifier_of(model)] if classifier else found)]


def first_conv_of(model: nn.Module) -> str:
    """The first convolution's name; FactorError where there is none."""
    return _one([name for name, module in model.named_modules() if isinstance(module, _ConvNd)], 0, "a convolution")


def classifier_of(model: nn.Module) -> str:
    """The classifier's name: the last nn.Linear or, in a network without one (SqueezeNet), the last convolution;
    FactorError where there is neither."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    convs = [name for name, module in model.named_modules() if isinstance(module, _ConvNd)]
    return _one(linear or convs, -1, "an nn.Linear or a last convolution")


def _one(names: list[str], place: int, what: str) -> str:
    if not names:
        raise FactorError(
            f"This method trains {what} as it is; this network has none. Leave it out, or choose another."
        )
    return names[place]
