"""A learning rate that is far from what a search found for the method. Knows experiments; not how they train."""

from fed_lorac.experiment.experiment import Experiment
from fed_lorac.registry import STRATEGIES

__all__ = ["far_rate"]

FAR = 10.0
"""So many times, or so small a part of what was found, is worth a remark: searches were of decades and thirds of them,
and other data and networks move the best rate by as much."""


def far_rate(experiment: Experiment) -> str | None:
    """A remark on a `local.lr` that is ten times what a search found for the method, or a tenth; None where it is
    nearer, or nobody searched."""
    config, of_strategy = experiment.config, STRATEGIES.load(experiment.config.strategy.name).found_lr
    found, lr = of_strategy or experiment.adapter.suggested_lr, config.local.lr
    if not found or found / FAR < lr < found * FAR:
        return None
    whose = (
        f'strategy.name = "{config.strategy.name}"' if of_strategy else f'adapter.method = "{config.adapter.method}"'
    )
    how = "slowly, if at all" if lr < found else "worse than with a smaller one, or not at all"
    return (
        f"local.lr = {lr:g} is far from {found:g}, what a search found for {whose} (docs/methods.md, Learning rates): "
        f"cameras may learn {how}. Try rates between, or tune them in a study."
    )
