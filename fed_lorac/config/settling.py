"""Whether a run's server can settle what a config leaves to it, of what cameras say in a first round. Knows the config
and what classes say of themselves; not how anything is settled."""

from typing import TYPE_CHECKING

from fed_lorac.runtime.spelling import toml

if TYPE_CHECKING:
    from fed_lorac.adapters.adapter import Adapter
    from fed_lorac.config.whole import Config
    from fed_lorac.server.traits import Traits

__all__ = ["never_settled"]


def never_settled(config: "Config", adapter: "Adapter", strategy: "Traits") -> str:
    """Why the layers or the bases that the server is to settle never would be; "" where they are, or there are none."""
    name = f"strategy.name = {toml(config.strategy.name)}"
    if config.adapter.chooses and not strategy.sends:
        return (
            'Layers are chosen by the server, of what cameras send; got adapter.layers = "auto" with '
            f"{name}, where they send nothing. Name the layers, or choose another strategy."
        )
    if not adapter.finds_bases:
        return ""
    if config.adapter.chooses:
        why = 'adapter.layers = "auto", which has that round'
    elif config.adapter.personal:
        why = f"adapter.parts.personal = {toml(config.adapter.personal)}, which all cameras have of their own"
    elif not strategy.sends:
        why = f"{name}, where they send nothing"
    elif strategy.forward_only:
        why = f"{name}, where they take none"
    elif strategy.rotates:
        why = f"{name}, which draws bases anew each round"
    else:
        return ""
    return (
        "The server finds bases in a first round, from gradients that cameras send once; got bases = "
        f'"gradient" with {why}. Set bases = "weight", or change that.'
    )
