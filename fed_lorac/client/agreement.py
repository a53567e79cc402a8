"""What server and cameras of an experiment agree on before the first round, as every process makes it for itself. Knows
networks and adapters; not images or messages."""

from dataclasses import replace
from functools import lru_cache, partial

from fed_lorac.adapters.bases import state_of
from fed_lorac.adapters.choice import CHOICE_KEY, NORMS_KEY
from fed_lorac.adapters.deltas import changed_names
from fed_lorac.experiment.adapters import candidates
from fed_lorac.experiment.experiment import Experiment, to_delta
from fed_lorac.models.fingerprints import shapes_of
from fed_lorac.server.strategy import FrameSpec, Shapes
from fed_lorac.training.accuracy import statistics_of

__all__ = ["frame_spec", "uplink_template"]


@lru_cache(maxsize=8)
def frame_spec(experiment: Experiment) -> FrameSpec:
    """The agreement, under which no frame of a run names its tensors. Where the server settles something, what cameras
    say to that and what they are told are agreed on too, and until it has settled it a whole model beside it."""
    templates = [uplink_template(experiment, place) for place in range(len(experiment.adapters))]
    spec = FrameSpec(
        base=experiment.base.fingerprint,
        shapes=shapes_of(experiment.base.model),
        template=templates[experiment.adapters.index(experiment.adapter)],
        scale=experiment.adapter.scale,
        to_delta=partial(to_delta, experiment),
        template_of=(lambda camera: templates[experiment.place(camera)]) if len(templates) > 1 else None,
        other_templates=templates,
        names_down=False,
    )
    said = _said_to_settle(experiment)
    if experiment.plan.settles:
        changed = {name: spec.shapes[name] for name in changed_names(spec.deltas)}
        said.append({**spec.template, **changed, **said[-1]})
    return replace(spec, other_templates=[*templates, *said]) if said else spec


def _said_to_settle(experiment: Experiment) -> list[Shapes]:
    """What is said in a round that settles something: what cameras are asked for, and what they are told."""
    adapter, base = experiment.adapter, experiment.base.model
    if experiment.config.adapter.chooses:
        layers = (len(candidates(experiment)),)
        return [{NORMS_KEY: layers}, {CHOICE_KEY: layers}]
    if not adapter.finds_bases:
        return []
    weights = {name: base.get_parameter(f"{name}.weight").detach() for name in adapter.gradients_wanted(base)}
    told = state_of(adapter.bases_of(weights))
    return [{f"{name}.weight": w.shape for name, w in weights.items()}, {name: t.shape for name, t in told.items()}]


def uplink_template(experiment: Experiment, place: int | None = None) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in the frame of a camera whose adapter has this place, read off a network that has
    it and was not trained; None: of the adapter of the highest rank."""
    place = experiment.adapters.index(experiment.adapter) if place is None else place
    model = experiment.attached(place)
    shared = statistics_of(model) if experiment.plan.batch_norm.mode == "shared" else {}
    adapter = experiment.adapters[place]
    state = {key: tensor for key, tensor in adapter.read(model).items() if not adapter.is_personal(key)}
    return {name: tuple(tensor.shape) for name, tensor in (state | shared).items()}
