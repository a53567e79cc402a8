"""The sizes that a plan is made of: frames of a config's own method, of every adapter, and of full fine-tuning, built
and weighed without training. Knows experiments and strategies; not links."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fed_lorac.adapters.targets import ALL_LAYERS
from fed_lorac.config import AdapterConfig, CodecConfig, Config
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.build import with_config
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.registry import ADAPTERS, STRATEGIES
from fed_lorac.reporting.plan import MethodSizes
from fed_lorac.simulation.forecast import first_round, reply_bytes
from fed_lorac.simulation.waste import first_frames

__all__ = ["OWN", "configs_of", "sizes_of"]

OWN = "own"
"""What stands for the config's own method among names of adapters."""


def configs_of(config: Config, methods: tuple[str, ...] = ()) -> tuple[list[tuple[str, Config]], list[str]]:
    """Each method's name and config, and of those that do not go with the rest of the config why they are left out.

    Args:
        config: a run's.
        methods: names of adapters, each with its defaults, and "own"; none: the config's own, every other adapter,
            and full fine-tuning in fp32.
    """
    found, left_out = [], []
    others = (name for name in ADAPTERS.names if name not in (config.adapter.method, "full"))
    for name in methods or (OWN, *others, "full"):
        try:
            found.append(_named(config, name))
        except ConfigError as error:
            left_out.append(f"{name}: {error}")
    return found, left_out


def _named(config: Config, name: str) -> tuple[str, Config]:
    if name == OWN:
        return OWN, config
    codec = CodecConfig() if name == "full" else replace(config.codec, error_feedback=False)
    return name, _with_adapter(replace(config, codec=codec), name)


def _with_adapter(config: Config, name: str) -> Config:
    """The adapter with its defaults, by fedavg where that takes it, else merged; on all layers, where the config leaves
    the choice to the server."""
    adapter = config.adapter
    if adapter.chooses:
        adapter = replace(adapter, layers=ALL_LAYERS, budget_bytes=AdapterConfig.budget_bytes)
    adapter = adapter.choose("method", name)
    try:
        return replace(config, adapter=adapter, strategy=config.strategy.choose("name", "fedavg"))
    except ConfigError:
        return replace(config, adapter=adapter, strategy=config.strategy.choose("name", "merged"))


def sizes_of(experiment: Experiment, methods: list[tuple[str, Config]]) -> Iterator[MethodSizes | str]:
    """What each method sends, of each of cameras' ranks, or why the network does not take it."""
    for name, config in methods:
        try:
            one = with_config(experiment, config)
            if most := one.plan.budget_bytes:
                yield f"{name}: its layers are chosen in the run, for {most:,} bytes of payload; name them for a plan"
                continue
            if one.plan.finds_bases:
                yield f'{name}: its bases are found in the run, in a first round; bases = "weight" has a plan'
                continue
            sends = STRATEGIES.load(config.strategy.name).sends
            ranks, update = config.adapter.ranks, _update(one) if sends else (0, 1)
            for place, rank in enumerate(ranks):
                of = f" r={rank}" if len(ranks) > 1 else ""
                yield MethodSizes(f"{name}{of}", reply_bytes(one, place) if sends else 0, *update)
        except ConfigError as error:
            yield f"{name}: {error}"


def _update(experiment: Experiment) -> tuple[int, int]:
    """Bytes of the frame of the first round's update with what a cluster, or a camera alone, has beside; and how many
    different updates that makes."""
    first = first_round(experiment.fleet)
    update, own = first_frames(experiment, [*first, *_of_other_weathers(experiment, first)])
    most = max((size for _, size in own.values()), default=0)
    parts = {name for name, _ in own.values()}
    return len(update.frame) + most, max(1, len(parts))


def _of_other_weathers(experiment: Experiment, first: Sequence[int]) -> Iterator[int]:
    """A camera of each weather that the first round lacks, where there are clusters: each may have its own part."""
    if STRATEGIES.load(experiment.config.strategy.name).personal_kind == "delta":
        cameras = experiment.fleet.cameras
        seen = {cameras[camera].corruption for camera in first}
        yield from {other.corruption: other.id for other in cameras if other.corruption not in seen}.values()
