"""Whether parts of an adapter can stay with cameras. Knows the config and what a strategy says of itself; not what a
part computes."""

from typing import TYPE_CHECKING

from fed_lorac.runtime.spelling import toml

if TYPE_CHECKING:
    from fed_lorac.adapters.adapter import Adapter
    from fed_lorac.config.whole import Config
    from fed_lorac.server.traits import Traits

__all__ = ["not_personal"]


def not_personal(config: "Config", strategy: "Traits") -> str:
    """Why the parts that are to stay with cameras cannot; "" where they can, or there are none."""
    if not config.adapter.personal:
        return ""
    if why := _keeps_no_parts(strategy):
        return (
            f"Personal parts stay with cameras that send the others to be averaged; {why}. Here adapter.method = "
            f"{toml(config.adapter.method)} with strategy.name = {toml(config.strategy.name)} and "
            f"adapter.parts.personal = {toml(config.adapter.personal)}; strategy.name may be merged, fedavg, flora or "
            "clustered."
        )
    if config.adapter.chooses:
        return (
            'Layers are chosen by what all send; got adapter.layers = "auto" with adapter.parts.personal = '
            f"{toml(config.adapter.personal)}. Name the layers, or leave no part with the cameras."
        )
    return _another_basis(config.adapter.first())


def _another_basis(adapter: "Adapter") -> str:
    """Why a personal part would not find the frozen numbers again that it was trained with; "" where it would."""
    parts = getattr(adapter, "parts", ())
    moved = [type(parts[k]).__name__ for k in adapter.personal if parts[k].with_frozen_basis() == parts[k]]
    if not (adapter.draws_anew and moved):
        return ""
    return (
        "A part that stays with its camera goes on over the frozen numbers that it began with, and beside parts that "
        f"are drawn anew in each round those are too; {', '.join(moved)} has some. Set its end_rank = 0, take a method "
        "whose every factor is trained, or send a linear part alone."
    )


def _keeps_no_parts(strategy: "Traits") -> str:
    """Why personal parts cannot be beside what this strategy does; empty: they can."""
    if not strategy.sends:
        return "under this strategy nothing is sent"
    if strategy.personal_kind == "adapter":
        return "under this strategy the server sends each camera an adapter of its own in their place"
    if strategy.rotates or strategy.forward_only or strategy.update_kind == "factors":
        return "under this strategy every part begins a round anew, or goes on as what all share"
    return ""
