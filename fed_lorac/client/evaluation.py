"""What a camera sees in a round, and how good networks are on it. Knows models, weather and statistics; not training,
frames or Flower."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from fed_lorac.adapters.deltas import apply_changes
from fed_lorac.client.global_model import GlobalModel, network_of_global_model, personal_delta
from fed_lorac.config import LocalStatistics
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.fleet import camera_data as views
from fed_lorac.models.fingerprints import named_tensors
from fed_lorac.seeds import stream
from fed_lorac.training.accuracy import Statistics, accuracy, reestimate_statistics, statistics_of

__all__ = ["Scores", "baseline", "evaluate", "recent", "seen"]


@dataclass(frozen=True)
class Scores:
    """Accuracies, 0 to 1, on the camera's evaluation images in its weather and in clear air (nan: there are none)."""

    weather: float
    clean: float


def evaluate(
    experiment: Experiment,
    running: GlobalModel,
    round: int,
    camera: int,
    statistics: Statistics,
    own: Mapping[str, Tensor],
) -> tuple[Scores, Statistics]:
    """Measure the camera's current model in the round's weather, and under local batch norm with that weather's
    statistics, which are returned. `own` is the part of the model that is the camera's alone."""
    model = network_of_global_model(experiment, running, statistics)
    tensors = named_tensors(model)
    apply_changes(tensors, running.factors, experiment.adapter.scale)
    apply_changes(tensors, personal_delta(experiment, own), experiment.adapter.scale)
    local = experiment.config.batch_norm.mode == "local"
    clean = _score(experiment, model, _seen_clear(experiment, camera, round), local)
    weather = _score(experiment, model, seen(experiment, camera, round), local)
    return Scores(weather, clean), statistics_of(model) if local else {}


def baseline(experiment: Experiment, round: int, camera: int) -> tuple[Scores, Scores]:
    """The starting base as it comes (source), and with statistics re-estimated by each camera (zero-byte), in the
    round's weather."""
    model = network_of_global_model(experiment, GlobalModel(), {})
    images = (seen(experiment, camera, round), _seen_clear(experiment, camera, round))
    source = [_score(experiment, model, view, False) for view in images]
    zero_byte = [_score(experiment, model, view, True) for view in images]
    return Scores(*source), Scores(*zero_byte)


def seen(experiment: Experiment, camera: int, round: int) -> views.CameraData:
    """A camera's images in the round's weather."""
    weather = experiment.fleet.weather(camera, round)
    return _as_they_come(
        experiment,
        camera,
        round,
        views.camera_data(experiment.data, experiment.fleet.cameras[camera], experiment.config.run.seed, weather),
    )


def recent(experiment: Experiment, view: views.CameraData) -> Tensor:
    """The images that a camera's statistics are taken from: the latest of its window, or all."""
    return view.train[-experiment.config.batch_norm.table(LocalStatistics).window :]  # -0: all


def _seen_clear(experiment: Experiment, camera: int, round: int) -> views.CameraData | None:
    """The same images in clear air; None where the data set has none."""
    view = views.clear(experiment.data, experiment.fleet.cameras[camera])
    return None if view is None else _as_they_come(experiment, camera, round, view)


def _as_they_come(experiment: Experiment, camera: int, round: int, view: views.CameraData) -> views.CameraData:
    """A view in its order in time, which is drawn only where it matters: batches are shuffled otherwise."""
    correlated = experiment.config.fleet.stream == "correlated"
    if not (correlated or experiment.config.batch_norm.table(LocalStatistics).window):
        return view
    return views.in_stream_order(
        view, stream(experiment.config.run.seed, "stream", camera, round), correlated=correlated
    )


def _score(experiment: Experiment, model: nn.Module, view: views.CameraData | None, reestimated: bool) -> float:
    if view is None:
        return float("nan")
    if reestimated:
        reestimate_statistics(model, recent(experiment, view), experiment.precision, experiment.base.normalization)
    return accuracy(model, view.test, view.test_labels, experiment.precision, experiment.base.normalization)
