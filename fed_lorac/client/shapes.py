"""What is known of local updates before one is made: how many stand side by side, what each sends. Knows networks and
adapters; not images or messages."""

from fed_lorac.client.local_update import trained_state
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.training.accuracy import statistics_of
from fed_lorac.training.blocks import block_size, why_apart

__all__ = ["block_size_of", "one_after_another", "uplink_template"]


def block_size_of(experiment: Experiment) -> int:
    """How many cameras train side by side: as the plan says, or by the rule for this network."""
    plan = experiment.plan
    return plan.block_size or block_size(
        experiment.attached(),
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
    why = why_apart(experiment.attached())
    return f"Cameras train one after another: {why}." if why else None


def uplink_template(experiment: Experiment, place: int | None = None) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in the frame of a camera whose adapter has this place, read off a network that has
    it and was not trained; None: of the adapter of the highest rank."""
    place = experiment.adapters.index(experiment.adapter) if place is None else place
    model = experiment.attached(place)
    state = trained_state(experiment, experiment.adapters[place], model, statistics_of(model))
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
