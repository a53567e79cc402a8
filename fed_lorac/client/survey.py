"""What cameras do in the round in which a server settles something: each says how much every layer would have to move,
or which way. Knows networks and frames; not budgets or bases, nor what is settled."""

from collections.abc import Mapping

from torch import Tensor

from fed_lorac.adapters.choice import NORMS_KEY
from fed_lorac.client.agreement import frame_spec
from fed_lorac.client.local_update import LocalUpdate, images_in_round, local_task, ready_for_training
from fed_lorac.client.state import ClientState, GlobalModel, build_network
from fed_lorac.experiment.adapters import candidates
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.seeds import stream
from fed_lorac.training.gradients import mean_gradients, relative_gradient_norms
from fed_lorac.wire.frame import encode

__all__ = ["survey"]

NORMS_CODEC = "fp16"
"""Norms are compared, not added up: three digits are enough, and half the bytes."""

GRADIENTS_CODEC = "bf16"
"""What they span is asked, whatever their size: bf16 has the range of float32."""


def survey(
    experiment: Experiment, global_model: GlobalModel, round: int, states: Mapping[int, ClientState]
) -> dict[int, LocalUpdate]:
    """Every camera's frame with each layer's relative gradient norm on its own images, in one pass, or, where bases are
    to be found, each layer's gradient, under its weight's name; nothing is trained, and their states stay as they are.
    """
    return {camera: _survey(experiment, global_model, round, camera, state) for camera, state in states.items()}


def _survey(
    experiment: Experiment, global_model: GlobalModel, round: int, camera: int, state: ClientState
) -> LocalUpdate:
    plan, view = experiment.plan, images_in_round(experiment, camera, round)
    [model] = ready_for_training(experiment, [build_network(experiment, global_model, state.statistics)], [view])
    one_pass = -(-len(view.train) // plan.recipe.batch_size)
    task = local_task(view, one_pass, stream(plan.seed, "survey", camera, round))
    found: dict[str, Tensor]
    if plan.finds_bases:
        layers, codec = experiment.adapter.gradients_wanted(experiment.base.model), GRADIENTS_CODEC
        gradients, loss = mean_gradients(model, layers, task, recipe=plan.recipe, objective=plan.objective)
        found = {f"{name}.weight": gradient for name, gradient in gradients.items()}
    else:
        layers, codec = candidates(experiment), NORMS_CODEC
        norms, loss = relative_gradient_norms(model, layers, task, recipe=plan.recipe, objective=plan.objective)
        found = {NORMS_KEY: norms}
    base, known = global_model.fingerprint(experiment.base.fingerprint), frame_spec(experiment).templates
    frame = encode(found, dtype=codec, base=base, templates=known)
    return LocalUpdate(frame, len(task.labels), loss, state)
