"""N networks that adapt to each batch as one: every camera's own directions, rates and moved tensors, in one pass.
Knows networks, their tensors and a cameras' axis; not steps or data."""

from collections.abc import Sequence
from functools import cache

from jaxtyping import Float
from torch import Tensor, nn

from fed_lorac.adapters.adapting import AdaptsToBatch
from fed_lorac.training.blocks.layers import Side

__all__ = ["SideAdapting", "side_by_side"]

_EVERY_MODULES = frozenset(vars(nn.Module()))


class SideAdapting(Side, AdaptsToBatch):
    """Stands before the class of N networks: it has their layers, side by side, and adapts (B, n*3, H, W) to the
    cameras' own (B, 3, H, W) as each network alone would."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__(networks)
        own = {name: value for name, value in vars(networks[0]).items() if name not in _EVERY_MODULES}
        vars(self).update(own)  # what its class's forward may look at

    @property
    def one(self) -> nn.Module:
        """The first network."""
        return self.like[0]

    def towards(self, name: str, batch: Float[Tensor, " n*channels"]) -> Float[Tensor, "cameras channels"]:
        """h of every camera's running statistic: zero of those who take no part."""
        own = self.get_buffer(name)
        rows = batch.view(self.count, -1)
        return (rows if self.part is None else own.index_copy(0, self.part, rows)) - own


def side_by_side(network: AdaptsToBatch) -> type[SideAdapting]:
    """What puts networks like this one side by side."""
    inner = tuple(name for name, _ in network.named_children())
    return _side_by_side(network.unadapted, inner)  # type: ignore[arg-type]  # a class, which has a hash


@cache
def _side_by_side(kind: type[nn.Module], inner: tuple[str, ...]) -> type[SideAdapting]:
    return type(f"SideAdapting{kind.__name__}", (SideAdapting, kind), {"inner": inner})
