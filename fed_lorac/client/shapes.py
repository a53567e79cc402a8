"""What is known of local updates before one is made: how many stand side by side. Knows networks and adapters; not
images or messages."""

from fed_lorac.experiment.experiment import Experiment
from fed_lorac.training.blocks import block_size, why_apart

__all__ = ["block_size_of", "one_after_another"]


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
