"""[fleet]: how many cameras there are, what they see, their links, and their limits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from fed_lorac import registry
from fed_lorac.config import names
from fed_lorac.config.section import Section, When
from fed_lorac.radio.cellular import Lte4g, LteCat1, LteM, NbIot
from fed_lorac.radio.link import Link
from fed_lorac.radio.lorawan import LoraWan
from fed_lorac.radio.wifi import Wifi
from fed_lorac.registry import Kind
from fed_lorac.runtime.settings import items, setting
from fed_lorac.runtime.spelling import list_text, meant

__all__ = ["Daily", "Dirichlet", "FleetConfig", "Front", "LimitedDevices", "Walk"]


@dataclass(frozen=True)
class Front:
    """[fleet.front]: a front of weather passes over the cameras, one after the other."""

    period: int = setting(6, "rounds that the front takes to pass over one camera", least=2)
    lag: float = setting(1.0, "rounds that the front takes from one camera to the next", least=0)


@dataclass(frozen=True)
class Daily:
    """[fleet.daily]: the severity rises and falls with the hour."""

    period: int = setting(6, "rounds in a day", least=2)


@dataclass(frozen=True)
class Walk:
    """[fleet.walk]: each camera's weather changes at random."""

    period: int = setting(6, "rounds between two changes of corruption, on average", least=2)


@dataclass(frozen=True)
class Dirichlet:
    """[fleet.dirichlet]: cameras differ in how often they see each class."""

    alpha: float = setting(0.5, "concentration; a smaller one makes cameras differ more", least=0.001)


@dataclass(frozen=True)
class LimitedDevices:
    """[fleet.limited]: cameras that are away, lose replies, take their time, are late, or live on a battery."""

    availability: float = setting(1.0, "probability that a camera can be reached in a round", above=0, most=1)
    dropout: float = setting(0.0, "probability that a camera's reply is lost", least=0, below=1)
    image_time_s: float = setting(0.0, "simulated seconds to train on one image at speed 1", least=0)
    speeds: float | str = setting(1.0, "training speeds, assigned to cameras round robin", above=0, listed=True)
    round_s: float = setting(0.0, "simulated seconds after which a reply is late; 0: never", least=0)
    compute_watt: float = setting(
        3.0, "watts while it trains; by default a Raspberry Pi Zero 2 W's at full load", least=0
    )
    idle_watt: float = setting(0.0, "watts of the camera besides training and radio", least=0)
    battery_wh: float = setting(5.0, "watt hours in a full battery; 5: 3GPP TR 45.820, section 5.4", above=0)
    self_discharge: float = setting(
        0.01,
        "share of its capacity that a battery loses in a year by itself; 0.01: primary lithium cells, Varta's handbook",
        least=0,
        below=1,
    )
    solar_wh: float = setting(0.0, "watt hours that a solar panel brings in a day", least=0)

    @property
    def speed_factors(self) -> tuple[float, ...]:
        """`speeds`, parsed."""
        return tuple(float(word) for word in items(str(self.speeds)))


def _several(links: object) -> bool:
    return len(items(list_text(links) or "")) > 1


def _above_0(images: object) -> bool:
    return isinstance(number := meant(int, images), int) and number > 0


RADIOS: tuple[type[Link], ...] = (LoraWan, NbIot, LteM, LteCat1, Lte4g, Wifi)
"""The kinds of built-in links, each with a table of settings for all links of its kind."""


def _among(table: str) -> Callable[[object], bool]:
    """Whether a built-in link of this kind is among those that a fleet has."""
    return lambda links: any(
        name in registry.LINKS.built_in and name.startswith(table) for name in items(list_text(links) or "")
    )


@dataclass(frozen=True)
class FleetConfig(Section):
    """Who the cameras are, what they see, and how they are linked."""

    section: ClassVar[str] = "fleet"
    choices: ClassVar = {
        "corruptions": replace(registry.CORRUPTIONS, declared={}),
        "schedule": Kind({"front": Front, "daily": Daily, "walk": Walk}),
        "label_skew": Kind({"dirichlet": Dirichlet}),
        "link": replace(registry.LINKS, declared={}),
        "devices": Kind({"limited": LimitedDevices}),
    }
    quiet: ClassVar = ("held_out",)
    under: ClassVar = {
        "deal": When("images", _above_0, "above 0"),
        "link_assignment": When("link", _several, "several links"),
    }
    cases: ClassVar = {
        kind.table: (When("link", _among(kind.table), f"a link of {kind.table}"), kind) for kind in RADIOS
    }
    cameras: int = setting(12, "cameras in the fleet", least=1)
    per_round: int = setting(12, "cameras that take part in a round, drawn at random", least=1)
    images: int = setting(
        0, "training images of each camera (with dirichlet: on average); 0: all that there are, divided", least=0
    )
    eval_images: int = setting(0, "evaluation images of each camera; 0: all that there are, divided", least=0)
    deal: str = setting(
        "disjoint",
        "whether each image belongs to one camera alone, or cameras draw theirs independently and may share some",
        choices=names.DEALS,
    )
    validation_share: float = setting(
        0.0,
        "for tuning: share of its training images that a camera is measured on in place of evaluation images",
        least=0,
        below=1,
    )
    corruptions: str = setting(
        "fog, snow, gaussian_noise",
        "kinds of weather, a list: the first camera has the first, the second the second, and so on",
        choices=("none", *registry.CORRUPTIONS.names),
        listed=True,
        outside=registry.CORRUPTIONS.is_outside,
    )
    severities: str = setting(
        "3, 4, 5",
        "how strong the weather is, a list: each kind comes in each strength",
        choices=names.SEVERITIES,
        listed=True,
    )
    held_out: str = setting(
        "",
        "kinds of weather, a list: cameras in them never train, but receive every update and are measured",
        choices=("none", *registry.CORRUPTIONS.names),
        listed=True,
        outside=registry.CORRUPTIONS.is_outside,
    )
    schedule: str = setting(
        "constant", "how a camera's weather changes from round to round", choices=names.WEATHER_SCHEDULES
    )
    stream: str = setting(
        "iid", "order of a camera's images: shuffled, class by class, or as it took them", choices=names.STREAMS
    )
    label_skew: str = setting(
        "iid", "how often a camera sees each class: as all others do, or unevenly", choices=names.LABEL_SKEWS
    )
    link: str = setting(
        "lte-m",
        "the radio that bytes are sent over: of all cameras, or a list",
        choices=registry.LINKS.names,
        listed=True,
        outside=registry.LINKS.is_outside,
    )
    link_assignment: str = setting("round_robin", "how links are assigned to cameras", choices=names.LINK_ASSIGNMENTS)
    devices: str = setting(
        "ideal",
        "whether cameras always reply in time, or may be away, slow or late, or lose replies",
        choices=names.FLEET_DEVICES,
    )

    @property
    def corruption_names(self) -> tuple[str, ...]:
        """`corruptions`, parsed."""
        return items(self.corruptions)

    @property
    def training_cameras(self) -> tuple[bool, ...]:
        """Whether each camera may be asked to train: its own weather is not among `held_out`."""
        held, weathers = items(self.held_out), self.corruption_names
        return tuple(weathers[i % len(weathers)] not in held for i in range(self.cameras))

    @property
    def severity_levels(self) -> tuple[int, ...]:
        """`severities`, parsed: whole numbers from 1 to 5."""
        return tuple(int(word) for word in items(self.severities))

    def links(self) -> dict[str, Link]:
        """Each of `link_names`, built with the settings of its table; ConfigError where it does not go with them."""
        made: dict[str, Link] = {
            name: registry.LINKS.make(name, **self.settings("link", name)) for name in self.link_names
        }
        tables: Mapping[str, Mapping[str, Any]] = self.tables
        return {
            name: replace(one, **tables.get(one.table, {})) if name in registry.LINKS.built_in else one
            for name, one in made.items()
        }

    @property
    def multicasts(self) -> bool:
        """Whether any of them has multicast."""
        return any(link.multicasts for link in self.links().values())

    @property
    def loses(self) -> bool:
        """Whether any of them loses messages."""
        return any(link.loses for link in self.links().values())

    @property
    def downlink(self) -> str:
        """How updates go down, in words."""
        by = {name: link.downlink for name, link in self.links().items()}
        if len(set(by.values())) == 1:
            return next(iter(by.values()))
        return ", ".join(f"{how} on {' and '.join(k for k in by if by[k] == how)}" for how in ("multicast", "unicast"))

    @property
    def link_names(self) -> tuple[str, ...]:
        """`link`, parsed."""
        return items(self.link)
