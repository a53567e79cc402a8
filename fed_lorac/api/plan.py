"""`fl.plan`: what a fleet's updates would take on its links, without training. Knows configs and links."""

from collections.abc import Sequence
from numbers import Integral
from statistics import fmean

from fed_lorac.config import AdapterConfig, LimitedDevices, Overrides, Source, load_config
from fed_lorac.errors import ConfigError
from fed_lorac.radio.battery import Battery
from fed_lorac.registry import LINKS
from fed_lorac.reporting.plan import MethodSizes, Plan, Terms, planned

__all__ = ["plan"]


def plan(
    source: Source = None,
    overrides: Overrides = (),
    *,
    cameras: int | None = None,
    updates_week: float = 1.0,
    price_per_mb: float = 0.0,
    methods: str | Sequence[str] = (),
    links: str | Sequence[str] = (),
) -> Plan:
    """What an update takes of each method on each link: bytes, packets, air time, joules, battery life, cost.

        plan = fl.plan("fog_snow_noise", cameras=200, links=["nb-iot-nb1"])
        [row.battery_days for row in plan.rows if row.possible]

    Frames are built and weighed; nothing is trained. Watts, battery and training time are those of `[fleet.limited]`,
    a link's numbers those of its table.

    Args:
        source: a config, as for `run`.
        overrides: settings on top.
        cameras: how many there are, each in every update; None: `fleet.cameras`.
        updates_week: updates in a week, above 0.
        price_per_mb: what a million bytes on the air cost, in any currency.
        methods: a name of an adapter or several, each with its defaults, and "own" for the config's; none: all of
            them, and full fine-tuning in fp32.
        links: a name of a link or several, and "all" for those that are built in; none: the config's.

    Raises:
        ConfigError: a setting is unknown or makes no sense.
        DataError: images or weights are missing or damaged.
    """
    _check(cameras, updates_week, price_per_mb)
    config = load_config(source, overrides)
    methods, links = ((names,) if isinstance(names, str) else tuple(names) for names in (methods, links))
    for name in methods:
        if name != "own":
            AdapterConfig().choose("method", name)  # a name that there is: whether it fits is said later
    named = dict.fromkeys(own for name in links for own in (LINKS.names if name == "all" else (name,)))
    asked = config.fleet.choose("link", ", ".join(named)) if named else config.fleet
    # PyTorch and Flower take seconds
    from fed_lorac.experiment.build import build_experiment, forget_experiments  # noqa: PLC0415
    from fed_lorac.experiment.experiment import compute_s  # noqa: PLC0415
    from fed_lorac.reporting.summary import label  # noqa: PLC0415
    from fed_lorac.simulation.plan import configs_of, sizes_of  # noqa: PLC0415

    found, left_out = configs_of(config, methods)
    forget_experiments()
    experiment = build_experiment(config)
    sizes = list(sizes_of(experiment, found))
    limits = config.fleet.table(LimitedDevices)
    terms = Terms(
        cameras=config.fleet.cameras if cameras is None else int(cameras),
        updates_week=updates_week,
        price_per_mb=price_per_mb,
        battery=Battery(limits.battery_wh, limits.self_discharge, limits.solar_wh),
        compute_s=fmean(map(compute_s(experiment), range(len(experiment.fleet.cameras)))),
        compute_watt=limits.compute_watt,
        idle_watt=limits.idle_watt,
    )
    rows = planned([one for one in sizes if isinstance(one, MethodSizes)], list(asked.links().values()), terms)
    codecs = f"{config.codec.up} up, {config.codec.down} down"
    if config.codec.entropy_coding:
        codecs += ", sizes before entropy coding, which depends on values: a run measures what it saves"
    return Plan(
        terms, f"{label(config)}, {codecs}", tuple(rows), (*left_out, *(one for one in sizes if isinstance(one, str)))
    )


def _check(cameras: int | None, updates_week: float, price_per_mb: float) -> None:
    whole = isinstance(cameras, Integral) and not isinstance(cameras, bool)
    if (
        (cameras is not None and (not whole or cameras < 1))
        or not 0 < updates_week < float("inf")
        or not 0 <= price_per_mb < float("inf")
    ):
        raise ConfigError(
            "A plan is for a whole number of cameras, at least one, more than 0 updates a week, and a price of 0 or "
            f"more; got {cameras} cameras, {updates_week} updates a week, {price_per_mb} for a million bytes. Correct "
            "them."
        )
