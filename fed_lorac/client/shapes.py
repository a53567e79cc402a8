"""What is known of local updates before one is made: how many stand side by side, what each sends. Knows networks and
adapters; not images or messages."""

import copy

from torch import nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.client.local_update import trained_state
from fed_lorac.experiment.experiment import Experiment, drawn_from
from fed_lorac.training.accuracy import statistics_of
from fed_lorac.training.blocks import block_size, why_apart

__all__ = ["block_size_of", "one_after_another", "uplink_template"]


def block_size_of(experiment: Experiment) -> int:
    """How many cameras train side by side: as the plan says, or by the rule for this network."""
    plan = experiment.plan
    return plan.block_size or block_size(
        _untrained(experiment, experiment.adapter),
        image_size=plan.image_size,
        batch_size=plan.recipe.batch_size,
        precision=plan.recipe.precision,
        device=experiment.device.type,
    )


def one_after_another(experiment: Experiment) -> str | None:
    """Why cameras train one after another, where a config or a GPU would have them side by side; None where they do
    stand so."""
    if experiment.plan.block_size < 2 and experiment.device.type != "cuda":
        return None
    why = why_apart(_untrained(experiment, experiment.adapter))
    return f"Cameras train one after another: {why}." if why else None


def uplink_template(experiment: Experiment, adapter: Adapter | None = None) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in a camera's frame, read off a network that has the adapter and was not trained;
    without `adapter`, of the adapter of the highest rank."""
    adapter = adapter or experiment.adapter
    model = _untrained(experiment, adapter)
    state = trained_state(experiment, adapter, model, statistics_of(model))
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _untrained(experiment: Experiment, adapter: Adapter) -> nn.Module:
    """A network with the adapter attached, to read shapes off."""
    model = copy.deepcopy(experiment.base.model)
    adapter.attach(model, drawn_from(experiment, 0))
    return model
