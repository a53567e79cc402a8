"""Folding batch norm into convolutions, for inference. Knows a plain network's dataflow; nothing of adapters.

The rule. A batch norm (by module type, whatever its name) is folded where an nn.Conv2d feeds it, in one place, whose
output feeds nothing else, and where it keeps running statistics. It becomes an nn.Identity and the convolution gains a
bias. Group norm takes its statistics from each image, so it cannot be folded and stays; so do a batch norm that
follows something other than a convolution (pre-activation networks) and one without running statistics.
"""

import copy
from collections.abc import Collection
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fed_lorac.errors import FactorError

__all__ = ["fold_batch_norm", "foldable"]


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A COPY of a plain network with batch norm folded, in eval mode: equal outputs to float32 rounding.

    It equals the original in EVAL mode (running statistics). FactorError where torch.fx cannot trace the network.
    """
    folded = copy.deepcopy(model).eval()
    modules = dict(folded.named_modules())
    for conv_name, norm_name in foldable(folded):
        _fold_pair(modules[conv_name], modules[norm_name])
        parent, _, child = norm_name.rpartition(".")
        setattr(modules[parent], child, nn.Identity().eval())
    return folded


class _LeafTracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (nn.Conv2d, _BatchNorm)) or super().is_leaf_module(m, module_qualified_name)


def _trace(model: nn.Module) -> fx.Graph:
    try:
        return _LeafTracer().trace(model)
    except Exception as error:  # fx raises whatever the network's own code raises on a proxy
        raise FactorError(
            f"Folding batch norm follows a network's dataflow with torch.fx, which cannot trace this "
            f"{type(model).__name__}: {error}. Merge with fold_bn=False."
        ) from error


def foldable(model: nn.Module, kinds: Collection[type[nn.Module]] = (nn.Conv2d,)) -> list[tuple[str, str]]:
    """(convolution, batch norm) pairs by dataflow: conv -> norm, both called once, the conv's output used once.

    A convolution is of one of `kinds`. FactorError where torch.fx cannot trace the network.
    """
    modules: dict[Any, nn.Module] = dict(model.named_modules())
    calls = [node for node in _trace(model).nodes if node.op == "call_module"]
    count = {id(modules[n.target]): sum(modules[m.target] is modules[n.target] for m in calls) for n in calls}
    pairs = []
    for norm in calls:
        conv = norm.args[0] if norm.args else None
        if not isinstance(conv, fx.Node) or conv.op != "call_module" or len(conv.users) != 1:
            continue
        layer, bn = modules[conv.target], modules[norm.target]
        once = count[id(layer)] == count[id(bn)] == 1
        if once and type(layer) in kinds and isinstance(bn, _BatchNorm) and bn.running_mean is not None:
            pairs.append((str(conv.target), str(norm.target)))
    return pairs


def _fold_pair(conv: nn.Module, norm: nn.Module) -> None:
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None and norm.running_var is not None
    trainable = conv.weight.requires_grad
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    conv.weight, conv.bias = weight.requires_grad_(trainable), bias.requires_grad_(trainable)
