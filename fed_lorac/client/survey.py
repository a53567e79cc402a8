"""What cameras do in the round that chooses layers: each says how much every layer would have to move. Knows networks
and frames; not budgets, nor what is chosen."""

from collections.abc import Mapping

from fed_lorac.adapters.choice import NORMS_KEY
from fed_lorac.client.agreement import frame_spec
from fed_lorac.client.local_update import LocalUpdate, images_in_round, local_task, ready_for_training
from fed_lorac.client.state import ClientState, GlobalModel, build_network
from fed_lorac.experiment.adapters import candidates
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.seeds import stream
from fed_lorac.training.gradients import relative_gradient_norms
from fed_lorac.wire.frame import encode

__all__ = ["survey_layers"]

SURVEY_CODEC = "fp16"
"""Norms are compared, not added up: three digits are enough, and half the bytes."""


def survey_layers(
    experiment: Experiment, global_model: GlobalModel, round: int, states: Mapping[int, ClientState]
) -> dict[int, LocalUpdate]:
    """Every camera's frame with each layer's relative gradient norm on its own images, in one pass; nothing is trained,
    and their states stay as they are."""
    return {camera: _survey(experiment, global_model, round, camera, state) for camera, state in states.items()}


def _survey(
    experiment: Experiment, global_model: GlobalModel, round: int, camera: int, state: ClientState
) -> LocalUpdate:
    plan, view = experiment.plan, images_in_round(experiment, camera, round)
    [model] = ready_for_training(experiment, [build_network(experiment, global_model, state.statistics)], [view])
    one_pass = -(-len(view.train) // plan.recipe.batch_size)
    task = local_task(view, one_pass, stream(plan.seed, "survey", camera, round))
    layers = candidates(experiment)
    norms, loss = relative_gradient_norms(model, layers, task, recipe=plan.recipe, objective=plan.objective)
    base, known = global_model.fingerprint(experiment.base.fingerprint), frame_spec(experiment).templates
    frame = encode({NORMS_KEY: norms}, dtype=SURVEY_CODEC, base=base, templates=known)
    return LocalUpdate(frame, len(task.labels), loss, state)
