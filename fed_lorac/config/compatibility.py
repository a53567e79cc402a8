"""Choices that do not go together. A law of one method stands on its class and is asked there; here are the laws
between sections. Knows the config and what classes say of themselves; not how they do it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from fed_lorac import registry
from fed_lorac.config import names
from fed_lorac.config.fleets import of_fleet
from fed_lorac.config.personal_parts import not_personal
from fed_lorac.config.sections import CifarResNet, LocalStatistics, RayWorkers
from fed_lorac.config.settling import never_settled
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.spelling import toml

if TYPE_CHECKING:
    from fed_lorac.adapters.adapter import Adapter
    from fed_lorac.config.whole import Config
    from fed_lorac.server.strategy import Strategy
    from fed_lorac.server.traits import SilentStrategy

    AnyStrategy: TypeAlias = Strategy | SilentStrategy

__all__ = ["contradictions", "finds_bases", "fixed_basis"]


def contradictions(config: "Config") -> Iterator[str]:
    """Each contradiction as one message: the law, what came, the remedy."""
    yield from _run(config)
    yield from of_fleet(config)
    yield from _objective(config)
    try:
        adapter, strategy = _trained(config), config.strategy.strategy()
    except ConfigError as error:  # a law of one class, about its own settings
        yield f"{error} That is adapter.method = {toml(config.adapter.method)}, or strategy.name = " + toml(
            config.strategy.name
        )
    else:
        yield from _method(config, adapter, strategy)
        yield from _adapting(config, strategy)
        yield from _forward_only(config, strategy)
        yield from _strategy_fleet(config, strategy)
        yield from _batch_norm(config, strategy)
        yield from _codec(config, strategy)
        yield from _draws(config, adapter, strategy)
    yield from _model(config)
    yield from _data(config)


def fixed_basis(config: "Config") -> bool:
    """Whether a camera's tensors mean the same in every round, so that what one round left out may be sent in another.

    Dense deltas do, and so do states over a basis that is drawn once, and factors that live on from round to round.
    Else A is drawn, or starts, anew each round, and what was left out of B belongs to an A that is gone.
    """
    strategy = config.strategy.strategy()
    if strategy.personal_kind == "adapter" and not strategy.sends:  # each camera goes on with its own
        return True
    anew = config.adapter.first().draws_anew and strategy.update_kind != "factors"
    return not (strategy.rotates or anew)


def finds_bases(config: "Config") -> bool:
    """Whether the server finds what adapters stand between, in a first round of its own."""
    return config.adapter.first().finds_bases


def _trained(config: "Config") -> "Adapter":
    """The adapter of the first rank, as cameras train it."""
    strategy: AnyStrategy = config.strategy.strategy()
    return strategy.adapted(config.adapter.first())


def _run(config: "Config") -> Iterator[str]:
    if config.run.engine == "flower" and config.run.pool != "ray":
        yield (
            f"Flower's runtime trains cameras in Ray's processes; got run.pool = {toml(config.run.pool)} with "
            'run.engine = "flower". Remove it, or set run.engine = "fleet".'
        )
    timeout_s = config.run.table(RayWorkers).block_timeout_s
    if config.run.engine == "flower" and timeout_s != RayWorkers.block_timeout_s:
        yield (
            f"Flower's runtime knows no blocks of cameras; got run.ray.block_timeout_s = {toml(timeout_s)} with "
            'run.engine = "flower". Remove it, or set run.engine = "fleet".'
        )


def _objective(config: "Config") -> Iterator[str]:
    """What the objective says of batches."""
    local = config.local
    if why := local.built_objective().refuses(local.batch_size):
        yield f"{why} Here local.objective = {toml(local.objective)} and local.batch_size = {local.batch_size}."


def _method(config: "Config", adapter: "Adapter", strategy: "AnyStrategy") -> Iterator[str]:
    """What the strategy says of the adapter, and of its ranks."""
    got = f"Here adapter.method = {toml(config.adapter.method)} with strategy.name = {toml(config.strategy.name)}"
    if why := strategy.refuses(adapter):
        others = {name: registry.STRATEGIES.load(name)() for name in registry.STRATEGIES.names}
        able = [name for name, one in others.items() if one.refuses(one.adapted(config.adapter.first())) is None]
        yield f"{why} {got}; strategy.name may be {' or '.join(map(toml, able))}."
    elif why := never_settled(config, config.adapter.first(), strategy) or not_personal(config, strategy):
        yield why
    elif why := strategy.refuses_ranks(adapter, config.adapter.ranks if adapter.has_rank else ()):
        yield f"{why} {got} and adapter.rank = {toml(config.adapter.rank)}."


def _adapting(config: "Config", strategy: "AnyStrategy") -> Iterator[str]:
    """What is asked where cameras learn how the network is to adapt to each batch."""
    if not config.adapter.first().adapts_to_batch or not strategy.trains:
        return
    got, local = f"got adapter.method = {toml(config.adapter.method)} with", config.local
    if not local.built_objective().uses_labels:
        yield (
            "How to adapt without labels must itself be learned with labels, or the network learns to be sure of "
            f'anything; {got} local.objective = {toml(local.objective)}. Set local.objective = "labels".'
        )
    statistics, mode = config.batch_norm.table(LocalStatistics).training_statistics, config.batch_norm.mode
    if not (mode == "frozen" or (mode == "local" and statistics == "fixed")):
        its = f" and batch_norm.local.training_statistics = {toml(statistics)}" if mode == "local" else ""
        yield (
            "A network that adapts to each batch starts from batch norm's statistics, so training must not change "
            f'them; {got} batch_norm.mode = {toml(mode)}{its}. Set batch_norm.mode = "frozen", as published, '
            'or batch_norm.local.training_statistics = "fixed".'
        )


def _forward_only(config: "Config", strategy: "AnyStrategy") -> Iterator[str]:
    """What cannot be where cameras train by forward passes alone, and send a few numbers."""
    name, local, codec = toml(config.strategy.name), config.local, config.codec
    if not strategy.forward_only:
        return
    if why := strategy.objective(local.built_objective()).refuses(local.batch_size):
        yield f"{why} Here local.objective = {toml(local.objective)} with strategy.name = {name}."
    if config.adapter.chooses:
        yield (
            'Layers are chosen for the bytes that each takes; got adapter.layers = "auto" with strategy.name = '
            f"{name}, where cameras send as much whatever the layers, and take no gradients. Name the layers."
        )
    for way, chosen in (("up", codec.up), ("down", codec.down)):
        if chosen in ("drive", "topk", "ternary"):
            yield (
                f"drive, topk and ternary are for many numbers, which share what is lost; got codec.{way} = "
                f"{toml(chosen)} with strategy.name = {name}, whose frames hold a few that all count. Choose fp32, "
                "fp16 or int8."
            )


def _batch_norm(config: "Config", strategy: "AnyStrategy") -> Iterator[str]:
    """What batch norm can be where nothing crosses the radio, and where nothing but its statistics is adapted."""
    mode, name = config.batch_norm.mode, toml(config.strategy.name)
    norm = config.model.table(CifarResNet).norm
    if not strategy.trains and mode != "local":
        yield (
            f"Without training, all that a camera adapts is batch norm's statistics; got batch_norm.mode = "
            f'{toml(mode)} with strategy.name = {name}. Set batch_norm.mode = "local".'
        )
    if not strategy.trains and norm != "batch":
        yield (
            f"Without training, all that a camera adapts is batch norm's statistics, and group norm has none; got "
            f'norm = {toml(norm)} in [model.{config.model.name}] with strategy.name = {name}. Set norm = "batch".'
        )
    if strategy.trains and not strategy.sends and mode == "shared":
        yield (
            f"Shared statistics are sent, and nothing is sent under {config.strategy.name}; got batch_norm.mode = "
            f'"shared" with strategy.name = {name}. Set batch_norm.mode to "local" or "frozen".'
        )
    if mode == "shared" and norm == "group":
        yield (
            'Only batch norm has statistics to share; got batch_norm.mode = "shared" with norm = "group". '
            'Set batch_norm.mode = "local", which then sends nothing.'
        )


def _strategy_fleet(config: "Config", strategy: "AnyStrategy") -> Iterator[str]:
    """What the strategy says of the fleet."""
    fleet = config.fleet
    if why := strategy.refuses_fleet(per_round=fleet.per_round, weather_walks=fleet.schedule == "walk"):
        yield (
            f"{why} Here fleet.per_round = {fleet.per_round} and fleet.schedule = {toml(fleet.schedule)} with "
            f"strategy.name = {toml(config.strategy.name)}."
        )
    takes_one = "aggregator" in config.strategy.in_view(vars(config.strategy))
    if takes_one and (why := config.strategy.build("aggregator").refuses_cameras(fleet.per_round)):
        yield (
            f"{why} Here fleet.per_round = {fleet.per_round} with strategy.aggregator = "
            f"{toml(config.strategy.aggregator)}."
        )


def _codec(config: "Config", strategy: "AnyStrategy") -> Iterator[str]:
    codec, method, name = config.codec, config.adapter.method, config.strategy.name
    if codec.error_feedback and not strategy.sends:
        yield (
            "Error feedback is for frames that cameras send; got codec.error_feedback = true with strategy.name = "
            f"{toml(name)}, where they send none. Set it to false, or choose another strategy."
        )
    elif codec.error_feedback and not fixed_basis(config):
        yield (
            "Error feedback adds what one round left out to the next, which makes sense only if the basis stays; got "
            f"codec.error_feedback = true with adapter.method = {toml(method)}, whose basis is drawn anew each round "
            f"under strategy.name = {toml(name)}. Set it to false, or choose factor-fedavg, or fedavg with an adapter "
            "that is linear."
        )
    up, down = codec.build("up"), codec.build("down")
    both_outside = all(registry.CODECS.is_outside(name) for name in (codec.up, codec.down))
    if both_outside and up.code == down.code and up.name != down.name:
        yield (
            f"A frame names its codec by its code; got codec.up = {toml(codec.up)} and codec.down = "
            f"{toml(codec.down)}, which both have {up.code}. Give one of them another code."
        )
    if codec.error_feedback and up.lossless:
        yield (
            "Error feedback is for codecs that lose something; got codec.error_feedback = true with codec.up = "
            f"{toml(codec.up)}. Set it to false, or choose another codec.up."
        )


def _draws(config: "Config", adapter: "Adapter", strategy: "AnyStrategy") -> Iterator[str]:
    """What a codec that sends a draw of each number asks of numbers."""
    codec, method, optimizer = config.codec, toml(config.adapter.method), config.strategy.server_optimizer
    up, down = codec.build("up").of_probabilities, codec.build("down").of_probabilities
    if (up or down) and not (adapter.of_probabilities and config.batch_norm.mode != "shared"):
        yield (
            f"bernoulli is for states that are probabilities and nothing else; got codec.up = {toml(codec.up)} and "
            f"codec.down = {toml(codec.down)} with adapter.method = {method}, strategy.name = "
            f"{toml(config.strategy.name)} and batch_norm.mode = {toml(config.batch_norm.mode)}. Use mask without "
            "ends (train_first_conv = false, train_classifier = false) and statistics that stay, or another codec."
        )
    elif down and (strategy.update_kind != "state" or strategy.personal_kind):
        yield (
            "Down, bernoulli is for a mean of states, which is of probabilities too; got codec.down = "
            f"{toml(codec.down)} with strategy.name = {toml(config.strategy.name)}, whose updates are none. Use "
            "fedavg, or another codec.down."
        )
    elif down and (optimizer != "sgd" or config.strategy.settings("server_optimizer")["lr"] > 1):
        yield (
            "Down, bernoulli is for a mean of states, and a step that is longer is no change of a probability; got "
            f"codec.down = {toml(codec.down)} with strategy.server_optimizer = {toml(optimizer)} and its settings. Use "
            "sgd with lr = 1 at most, or another codec.down."
        )
    elif up and codec.error_feedback:
        yield (
            "Error feedback is for what a codec leaves out, and a draw leaves out nothing in the mean: the rest of a "
            f"draw is no probability; got codec.error_feedback = true with codec.up = {toml(codec.up)}. Set it to "
            "false, or choose another codec.up."
        )


def _cameras(config: "Config") -> Iterator[str]:
    """What data sets ask of the fleet, as far as they are built in; of others it is known once they are open."""
    data, fleet = config.data, config.fleet
    if data.name == "cameras" and not data.root:
        yield (
            'Cameras\' images must be named; got data.name = "cameras" with an empty data.root. Set data.root to the '
            "folder that holds CAMERA/CLASS/FILE, or to a table of them."
        )
    if data.name in names.OWN_CAMERAS and fleet.label_skew != "iid":
        yield (
            f"Cameras with images of their own have the classes that they saw; got fleet.label_skew = "
            f'{toml(fleet.label_skew)} with data.name = {toml(data.name)}. Leave it at "iid".'
        )
    if fleet.stream == "time" and data.name not in names.OWN_CAMERAS and not data.outside():
        yield (
            "Images can come in time order only if the data set says who took them when; got fleet.stream = "
            f'"time" with data.name = {toml(data.name)}. Set fleet.stream to "iid" or "correlated".'
        )


def _model(config: "Config") -> Iterator[str]:
    if config.model.weights == "imagenet" and not registry.MODELS.is_of_library(config.model.name):
        yield (
            'ImageNet weights exist for the networks of torchvision and timm alone; got model.weights = "imagenet" '
            f'with model.name = {toml(config.model.name)}. Choose one, or model.weights = "pretrain".'
        )


def _data(config: "Config") -> Iterator[str]:
    data = config.data
    yield from _cameras(config)
    if data.name == "folder" and not data.root:
        yield (
            'An image folder must be named; got data.name = "folder" with an empty data.root. '
            "Set data.root to the folder that holds one sub-folder per class."
        )
    if data.name == "cifar10c" and config.model.weights == "pretrain":
        yield (
            'A base network is pretrained on the cloud\'s images, CIFAR-10-C has none; got data.name = "cifar10c" with '
            'model.weights = "pretrain". Set model.weights = "shipped" or a path.'
        )
