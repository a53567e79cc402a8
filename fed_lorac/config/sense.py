"""Choices that contradict one another. Knows the sections side by side; not where they came from."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fed_lorac.config import names, tables
from fed_lorac.runtime.spelling import toml

if TYPE_CHECKING:
    from fed_lorac.config.whole import Config

__all__ = ["contradictions", "fixed_basis"]


def contradictions(config: "Config") -> Iterator[str]:
    """Each contradiction as one message: the law, what came, the remedy."""
    yield from _fleet(config)
    yield from _method(config)
    yield from _silence(config)
    yield from _groups(config)
    yield from _server(config)
    yield from _codec(config)
    yield from _model(config)
    yield from _data(config)


def _fleet(config: "Config") -> Iterator[str]:
    fleet = config.fleet
    if fleet.per_round > fleet.cameras:
        yield (
            f"A round cannot draw more cameras than there are; got fleet.per_round = {fleet.per_round} of "
            f"fleet.cameras = {fleet.cameras}. Lower the first or raise the second."
        )


def _method(config: "Config") -> Iterator[str]:
    adapter, strategy, own = config.adapter, config.strategy.name, config.adapter.settings("method")
    if adapter.method not in (accepted := names.ACCEPTED[strategy]):
        able = [name for name in names.STRATEGIES if adapter.method in names.ACCEPTED[name]]
        yield (
            f"{_WHY[strategy]}; got adapter.method = {toml(adapter.method)} with strategy.name = {toml(strategy)}. Set "
            f"adapter.method to {_either(accepted)}, or for this method strategy.name to {_either(able)}."
        )
    if own.get("m1") and strategy == "fedavg":
        yield (
            f"{_WHY[strategy]}, and alpha1 x D1 is not; got adapter.filter-atoms.m1 = {own['m1']} with strategy.name = "
            f'{toml(strategy)}. Set adapter.filter-atoms.m1 = 0, or strategy.name = "merged".'
        )
    if own.get("kernel_wise") and own["rank_mode"] == "r*k":
        yield (
            f'Kernel-wise factors are (r, K) and (K, r), so their rank is r itself; got rank_mode = "r*k" with '
            f'kernel_wise = true in [adapter.{adapter.method}]. Set rank_mode = "r" or "auto".'
        )
    if own.get("kernel_wise") and strategy == "flexlora":
        yield (
            f"A rank is taken of layer-wise factors; got adapter.{adapter.method}.kernel_wise = true with "
            f'strategy.name = {toml(strategy)}. Set kernel_wise = false, or strategy.name = "merged".'
        )
    unequal = adapter.method in names.RANKED and len(set(adapter.ranks)) > 1
    if unequal and (adapter.method not in names.FACTORED or strategy in names.ONE_RANK):
        yield (
            "Cameras may differ in rank where products of factors are averaged; factors averaged apart, and states "
            f"over one frozen basis, are of one rank. Got adapter.rank = {toml(adapter.rank)} with adapter.method = "
            f"{toml(adapter.method)} and strategy.name = {toml(strategy)}. Set one rank, or choose lora-c "
            "with strategy flexlora, flora or merged."
        )


def _either(words: Sequence[str]) -> str:
    return " or ".join(map(toml, words))


_WHY = {
    "merged": "Deltas are merged where they are changes of a base; full fine-tuning is averaged as it is",
    "factor-fedavg": "The naive average is of factors A and B apart",
    "rotating-basis": "A basis that is drawn anew each round is one that adapters draw and freeze",
    "fedavg": "fedavg averages what cameras send, so the delta must be linear in it",
    "flora": "Factors A and B are what is stacked",
    "flexlora": "Factors A and B are what each camera gets its own rank of",
    "clustered": "Deltas are merged where they are changes of a base; full fine-tuning is averaged as it is",
}


def _silence(config: "Config") -> Iterator[str]:
    """What batch norm can be where nothing crosses the radio, and where nothing but its statistics is adapted."""
    strategy, mode, norm = config.strategy.name, config.batch_norm.mode, _norm(config)
    if strategy == "zero-byte" and mode != "local":
        yield (
            "Zero-byte is local batch norm alone: each camera takes its own statistics; got batch_norm.mode = "
            f'{toml(mode)} with strategy.name = "zero-byte". Set batch_norm.mode = "local".'
        )
    if strategy == "zero-byte" and norm != "batch":
        yield (
            "Zero-byte is local batch norm alone, and group norm has no statistics to adapt; got norm = "
            f'{toml(norm)} in [model.{config.model.name}] with strategy.name = "zero-byte". Set norm = "batch".'
        )
    if strategy == "local-only" and mode == "shared":
        yield (
            'Shared statistics travel, and nothing does under local-only; got batch_norm.mode = "shared" with '
            'strategy.name = "local-only". Set batch_norm.mode to "local" or "frozen".'
        )


def _groups(config: "Config") -> Iterator[str]:
    strategy, fleet, own = config.strategy, config.fleet, config.strategy.settings("name")
    if strategy.name == "clustered" and own["by"] == "weather" and fleet.schedule == "walk":
        yield (
            "Cameras are clustered by the corruption assigned to them, and a walk takes each camera through all of "
            'them; got strategy.clustered.by = "weather" with fleet.schedule = "walk". Set by = "similarity", '
            "or another schedule."
        )
    if strategy.name == "clustered" and own["by"] == "similarity" and own["clusters"] > fleet.per_round:
        yield (
            "Clusters are found among the cameras of one round, each with at least one; got "
            f"strategy.clustered.clusters = {own['clusters']} with fleet.per_round = "
            f"{fleet.per_round}. Lower the first or raise the second."
        )


def _server(config: "Config") -> Iterator[str]:
    """What acts on each entry of a dense delta leaves neither factors nor states, and some updates are those."""
    strategy, server, aggregator = config.strategy, config.strategy.server_optimizer, config.strategy.aggregator
    chosen = f"strategy.server_optimizer = {toml(server)} and strategy.aggregator = {toml(aggregator)}"
    got = f"got {chosen} with strategy.name = {toml(strategy.name)}"
    if strategy.name == "factor-fedavg" and (server, aggregator) != ("sgd", "mean"):
        yield (
            f"Server optimizers and aggregators work on the cameras' deltas, which factor-fedavg does not form; {got}. "
            'Set them to "sgd" and "mean", or strategy.name = "merged".'
        )
    if strategy.name == "flexlora" and (server, aggregator) != ("sgd", "mean"):
        yield (
            f"Server optimizers and aggregators work on deltas, and flexlora's factors live on over rounds; {got}. "
            'Set them to "sgd" and "mean", or strategy.name = "merged".'
        )
    if strategy.name == "clustered" and (server, aggregator) != ("sgd", "mean"):
        yield (
            f"A group differs from all by its mean delta less theirs; {got}. Set them to "
            '"sgd" and "mean", or strategy.name = "merged".'
        )
    elementwise = [server] * (server in ("adam", "yogi")) + [aggregator] * _elementwise(config)
    if strategy.name == "flora" and elementwise:
        yield (
            f"{elementwise[0]} acts on each entry of dense deltas, and no stack of factors is left; {got}. Set "
            'strategy.name = "merged", or choose sgd or momentum of mean.'
        )
    if strategy.name == "merged" and strategy.settings("name")["downlink"] == "stack" and elementwise:
        yield (
            f"{elementwise[0]} acts on each entry of dense deltas, and no stack of factors is left; {got} and "
            'strategy.merged.downlink = "stack". Set it to "dense" or "svd", or choose sgd or momentum of mean.'
        )
    expanded = config.adapter.method in names.EXPANDED or strategy.name == "rotating-basis"
    if expanded and strategy.name in names.SEND_STATES and (elementwise or aggregator != "mean"):
        yield (
            f"{(*elementwise, aggregator)[0]} acts on dense deltas, and the mean of states goes down; {got} and "
            f'adapter.method = {toml(config.adapter.method)}. Set strategy.name = "merged", or sgd of mean.'
        )
    if strategy.name == "rotating-basis" and server == "momentum":
        yield (
            f"Momentum adds up what rounds have in common, and a rotating basis is new in each; {got}. Set "
            'strategy.server_optimizer = "sgd", or strategy.name = "fedavg", whose basis stays.'
        )


def _elementwise(config: "Config") -> bool:
    aggregator = config.strategy.aggregator
    return aggregator in ("median", "trimmed") or (
        aggregator == "clipped" and config.strategy.settings("aggregator")["noise"] > 0
    )


def fixed_basis(config: "Config") -> bool:
    """Whether a camera's tensors mean the same in every round, so that what one round left out may be sent in another.

    Dense changes do, and so do states over a basis that is drawn once, and factors that live on from round to round.
    Else A is drawn, or starts, anew each round, and what was left out of B belongs to an A that is gone.
    """
    adapter, strategy = config.adapter, config.strategy.name
    if strategy == "rotating-basis" or adapter.settings("method").get("m1"):
        return strategy == "local-only"
    return adapter.method in names.FIXED_BASIS or strategy in ("factor-fedavg", "local-only")


def _codec(config: "Config") -> Iterator[str]:
    codec, method, strategy = config.codec, config.adapter.method, config.strategy.name
    if codec.error_feedback and strategy in names.SILENT:
        yield (
            "Error feedback is for frames that cameras send; got codec.error_feedback = true with strategy.name = "
            f"{toml(strategy)}, where they send none. Set it to false, or choose another strategy."
        )
    elif codec.error_feedback and not fixed_basis(config):
        yield (
            "Error feedback adds what one round left out to the next, which has a meaning where the basis stays; got "
            f"codec.error_feedback = true with adapter.method = {toml(method)}, whose basis is another each round "
            f"under strategy.name = {toml(strategy)}. Set it to false, or choose factor-fedavg, or fedavg with one "
            f"of {', '.join(names.FIXED_BASIS)}."
        )
    if codec.error_feedback and codec.up in names.LOSSLESS:
        yield (
            "Error feedback is for codecs that lose something; got codec.error_feedback = true with codec.up = "
            f"{toml(codec.up)}. Set it to false, or choose another codec.up."
        )


def _norm(config: "Config") -> str:
    return config.model.table(tables.CifarResNet).norm


def _model(config: "Config") -> Iterator[str]:
    model, torchvisions = config.model, config.model.name in names.TORCHVISION_MODELS
    if model.weights == "imagenet" and not torchvisions:
        yield (
            f"ImageNet weights exist for {', '.join(names.TORCHVISION_MODELS)} alone; got model.weights = "
            f'"imagenet" with model.name = {toml(model.name)}. Choose one of these, or model.weights = "pretrain".'
        )
    if config.batch_norm.mode == "shared" and _norm(config) == "group":
        yield (
            'Only batch norm has statistics to share; got batch_norm.mode = "shared" with norm = "group". '
            'Set batch_norm.mode = "local", which then sends nothing.'
        )


def _data(config: "Config") -> Iterator[str]:
    data = config.data
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
