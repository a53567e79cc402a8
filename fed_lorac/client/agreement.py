"""What server and cameras of an experiment agree on before the first round, as every process makes it for itself. Knows
networks and adapters; not images or messages."""

from dataclasses import replace
from functools import lru_cache, partial

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
    """The agreement, under which no frame of a run names its tensors. Where the server chooses the layers, what cameras
    say of them and the choice are agreed on too, and until it has chosen a whole model beside its choice."""
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
    if not experiment.config.adapter.chooses:
        return spec
    layers = (len(candidates(experiment)),)
    said: list[Shapes] = [{NORMS_KEY: layers}, {CHOICE_KEY: layers}]
    if experiment.plan.budget_bytes:
        changed = {name: spec.shapes[name] for name in changed_names(spec.deltas)}
        said.append({**spec.template, **changed, CHOICE_KEY: layers})
    return replace(spec, other_templates=[*templates, *said])


def uplink_template(experiment: Experiment, place: int | None = None) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in the frame of a camera whose adapter has this place, read off a network that has
    it and was not trained; None: of the adapter of the highest rank."""
    place = experiment.adapters.index(experiment.adapter) if place is None else place
    model = experiment.attached(place)
    shared = statistics_of(model) if experiment.plan.batch_norm.mode == "shared" else {}
    adapter = experiment.adapters[place]
    state = {key: tensor for key, tensor in adapter.read(model).items() if not adapter.is_personal(key)}
    return {name: tuple(tensor.shape) for name, tensor in (state | shared).items()}
