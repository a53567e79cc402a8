"""What server and cameras of an experiment agree on before the first round, as every process makes it for itself. Knows
networks and adapters; not images or messages."""

import copy
from functools import lru_cache, partial

from torch import nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.experiment.experiment import Experiment, drawn_from, to_delta
from fed_lorac.models.fingerprints import shapes_of
from fed_lorac.server.strategy import FrameSpec
from fed_lorac.training.accuracy import statistics_of

__all__ = ["frame_spec", "untrained", "uplink_template"]


@lru_cache(maxsize=8)
def frame_spec(experiment: Experiment) -> FrameSpec:
    """The agreement, under which no frame of a run names its tensors."""
    templates = [uplink_template(experiment, adapter) for adapter in experiment.adapters]
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


def uplink_template(experiment: Experiment, adapter: Adapter | None = None) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in a camera's frame, read off a network that has the adapter and was not trained;
    without `adapter`, of the adapter of the highest rank."""
    adapter = adapter or experiment.adapter
    model = untrained(experiment, adapter)
    shared = statistics_of(model) if experiment.plan.batch_norm.mode == "shared" else {}
    return {name: tuple(tensor.shape) for name, tensor in (adapter.read(model) | shared).items()}


def untrained(experiment: Experiment, adapter: Adapter) -> nn.Module:
    """A network with the adapter attached, to read shapes off."""
    model = copy.deepcopy(experiment.base.model)
    adapter.attach(model, drawn_from(experiment, 0))
    return model
