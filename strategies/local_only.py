"""No federation, a baseline: each camera trains its adapter on and on, and keeps it. What a fleet reaches without a
radio."""

from dataclasses import dataclass

from fed_lorac.server.traits import SilentStrategy

__all__ = ["LocalOnly"]


@dataclass(frozen=True)
class LocalOnly(SilentStrategy):
    """Every drawn camera trains its adapter and keeps it."""

    source = "no federation: each camera's own adapter"
    personal_kind = "adapter"
