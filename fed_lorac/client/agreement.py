"""What server and cameras of an experiment agree on before the first round, as every process makes it for itself. Knows
networks and adapters; not images or messages."""

from functools import lru_cache, partial

from fed_lorac.experiment.experiment import Experiment, to_delta
from fed_lorac.models.fingerprints import shapes_of
from fed_lorac.server.strategy import FrameSpec
from fed_lorac.training.accuracy import statistics_of

__all__ = ["frame_spec", "uplink_template"]


@lru_cache(maxsize=8)
def frame_spec(experiment: Experiment) -> FrameSpec:
    """The agreement, under which no frame of a run names its tensors."""
    templates = [uplink_template(experiment, place) for place in range(len(experiment.adapters))]
    return FrameSpec(
        base=experiment.base.fingerprint,
        shapes=shapes_of(experiment.base.model),
        template=templates[experiment.adapters.index(experiment.adapter)],
        scale=experiment.adapter.scale,
        to_delta=partial(to_delta, experiment),
        template_of=(lambda camera: templates[experiment.place(camera)]) if len(templates) > 1 else None,
        other_templates=templates,
        names_down=False,
    )


def uplink_template(experiment: Experiment, place: int | None = None) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in the frame of a camera whose adapter has this place, read off a network that has
    it and was not trained; None: of the adapter of the highest rank."""
    place = experiment.adapters.index(experiment.adapter) if place is None else place
    model = experiment.attached(place)
    shared = statistics_of(model) if experiment.plan.batch_norm.mode == "shared" else {}
    return {name: tuple(tensor.shape) for name, tensor in (experiment.adapters[place].read(model) | shared).items()}
