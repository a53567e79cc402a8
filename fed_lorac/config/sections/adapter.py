"""[adapter]: what a camera trains. Each adapter's own settings are its class's."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from fed_lorac import registry
from fed_lorac.config.section import Section, When
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.settings import items, setting

if TYPE_CHECKING:
    from fed_lorac.adapters.adapter import Adapter

__all__ = ["AdapterConfig"]

AUTO = "auto"


@dataclass(frozen=True)
class PartRates:
    """[adapter.parts]: what an adapter of several parts has beside their own settings."""

    lr_factors: float | str = setting(
        1.0, "what local.lr is multiplied by for each part, in their order; or one number for all", above=0, listed=True
    )
    personal: str = setting(
        "", "parts, a list, that each camera keeps for itself: trained from round to round, never sent", listed=True
    )


@dataclass(frozen=True)
class AdapterConfig(Section):
    """What a camera trains."""

    section: ClassVar[str] = "adapter"
    choices: ClassVar = {"method": registry.ADAPTERS}
    shared: ClassVar = {"method": ("rank", "alpha", "layers")}
    cases: ClassVar = {"parts": (When("method", lambda method: "+" in str(method), "made of parts, a + b"), PartRates)}
    under: ClassVar = {"budget_bytes": When("layers", lambda layers: layers == AUTO, '"auto"')}
    method: str = setting(
        "lora-c",
        "what cameras train and send in place of the whole network",
        choices=registry.ADAPTERS.names,
        outside=registry.ADAPTERS.takes,
    )
    rank: int | str = setting(
        2, "rank r: the larger, the more is trained and sent; or a list, for cameras in turn", least=1, listed=True
    )
    alpha: float = setting(
        4.0, "what is learnt counts alpha / r times (of several ranks, r is the largest); the paper: 2 r", above=0
    )
    layers: str = setting(
        "all",
        'convolutions that are adapted: "all" but the first, names and patterns like "layer1.*, layer2.0.conv?", or '
        '"auto": the server chooses',
        listed=True,
    )
    budget_bytes: int = setting(
        20_000, "largest payload of a camera's frame, in bytes: the server chooses layers that fit", least=1
    )

    def build(self, key: str, **changes: Any) -> Any:
        """As `Section.build`, with a learning-rate factor for each part, and where it stays."""
        made = super().build(key, **changes)
        if key != "method" or "parts" not in self.tables:
            return made
        said, parts = self.table(PartRates), registry.ADAPTERS.parts(self.method)
        if strange := [name for name in items(said.personal) if name not in parts]:
            raise ConfigError(
                f"Personal parts are some of the method's; got adapter.parts.personal = {said.personal!r} with "
                f"adapter.method = {self.method!r}. Remove {strange[0]}, or add it to the method."
            )
        factors = tuple(float(word) for word in items(str(said.lr_factors)))
        places = tuple(place for place, name in enumerate(parts) if name in items(said.personal))
        return replace(made, lr_factors=factors, personal=places)

    def first(self) -> "Adapter":
        """The adapter of the first rank."""
        rank = {"rank": self.ranks[0]} if "rank" in self.settings("method") else {}
        adapter: Adapter = self.build("method", **rank)
        return adapter

    @property
    def personal(self) -> str:
        """Parts that stay with each camera; empty: none."""
        return self.table(PartRates).personal if "parts" in self.tables else ""

    @property
    def chooses(self) -> bool:
        """Whether the server chooses the layers."""
        return self.layers == AUTO

    @property
    def ranks(self) -> tuple[int, ...]:
        """`rank`, parsed: those that are assigned to cameras round robin."""
        return tuple(int(word) for word in items(str(self.rank)))
