"""Dataflow: the calls that a network makes, and which convolution feeds which batch norm and nothing else. Knows calls
between layers, by torch.fx; not what layers hold."""

import threading
from collections import Counter
from typing import Any, NamedTuple

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fed_lorac.errors import FactorError

__all__ = ["Feed", "calls_of", "feeds"]


class Feed(NamedTuple):
    """What feeds a batch norm: a convolution by name, or why that can't be said; one of the two is ""."""

    conv: str
    unfed: str


def feeds(model: nn.Module) -> dict[str, Feed]:
    """Each batch norm by name, and what feeds it.

    A norm has its convolution where both are called once, the norm takes the convolution's output, and nothing else
    does. Where any tensor of the two is read elsewhere in the network, or hooks see what is between them, it has not.
    FactorError where torch.fx cannot trace the network.
    """
    nodes, modules = calls_of(model), dict(model.named_modules())
    calls = Counter(str(node.target) for node in nodes if node.op == "call_module")
    read = {str(node.target).rpartition(".")[0] for node in nodes if node.op == "get_attr"}
    found = {name: Feed("", _uncalled(calls[name])) for name, m in modules.items() if isinstance(m, _BatchNorm)}
    for node in nodes:
        if node.op == "call_module" and found.get(name := str(node.target)) == Feed("", ""):
            before = node.args[0] if node.args else None
            conv = str(before.target) if isinstance(before, fx.Node) and before.op == "call_module" else ""
            why = _unfed(conv, before, modules, calls) or _seen(conv, name, modules, read)
            found[name] = Feed("" if why else conv, why)
    return found


def _uncalled(calls: int) -> str:
    return "" if calls == 1 else f"it is called {calls} times" if calls else "no call of it was seen"


def _unfed(conv: str, call: Any, modules: dict[str, nn.Module], calls: Counter[str]) -> str:
    if not conv or not isinstance(modules[conv], nn.Conv2d):
        return "it does not follow a convolution"
    if calls[conv] > 1:
        return f"its convolution {conv} is called {calls[conv]} times"
    return "" if len(call.users) == 1 else f"the output of its convolution {conv} is used elsewhere too"


def _seen(conv: str, norm: str, modules: dict[str, nn.Module], read: set[str]) -> str:
    if taken := {conv, norm} & read:
        return f"tensors of {min(taken)} are read elsewhere"
    between = _around(conv) ^ _around(norm)
    if hooked := sorted(name for name in between if modules[name]._forward_hooks or modules[name]._forward_pre_hooks):
        return f"hooks of {hooked[0]} see what is between it and its convolution {conv}"
    return ""


def _around(name: str) -> set[str]:
    """The containers that a layer is in."""
    parts = name.split(".")
    return {".".join(parts[:depth]) for depth in range(len(parts))}


_tracing = threading.Lock()


class _LeafTracer(fx.Tracer):
    """While it traces, torch.fx has every module's calls of this process come to it: those of other threads pass."""

    def __init__(self, whole: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self.whole, self._thread = (nn.Conv2d, _BatchNorm, *whole), threading.get_ident()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self.whole) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Past a container's hooks: they are the user's, and not to be called with what stands for a tensor here."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, m.forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """What a module has by this name; for this thread's, as fx records it."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def calls_of(model: nn.Module, whole: tuple[type[nn.Module], ...] = ()) -> list[fx.Node]:
    """The network's calls in its order: of PyTorch's own layers and those of the kinds `whole`, of which nothing inside
    is seen, and of functions between them.

    FactorError where torch.fx cannot trace the network.
    """
    try:
        if "forward" in vars(model):
            raise ValueError("its forward was set on the object")  # fx would trace its class's
        with _tracing:
            return list(_LeafTracer(whole).trace(model).nodes)
    except Exception as error:  # fx raises whatever the network's own code raises on a proxy
        raise FactorError(
            f"A network's dataflow is followed with torch.fx, which cannot trace this {type(model).__name__}: {error}. "
            "Leave its batch norm as it is."
        ) from error
