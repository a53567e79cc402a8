"""What a camera sees in a round, and how accurate networks are on it. Knows models, weather and statistics; not
training, frames or Flower."""

from dataclasses import dataclass

from torch import Tensor, nn

from fed_lorac.adapters.deltas import apply_delta
from fed_lorac.client.state import ClientState, GlobalModel, build_network, personal_delta, personal_parameters
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.fleet import camera_data
from fed_lorac.fleet.camera_data import CameraData
from fed_lorac.models.fingerprints import named_tensors
from fed_lorac.seeds import stream
from fed_lorac.training.accuracy import accuracy, reestimate_statistics, statistics_of

__all__ = ["Scores", "evaluate", "evaluate_base", "images_for_statistics", "images_in_round"]


@dataclass(frozen=True)
class Scores:
    """Accuracies, 0 to 1, on the camera's evaluation images in its weather and in clear air (nan: there are none)."""

    weather: float
    clean: float


def evaluate(
    experiment: Experiment, global_model: GlobalModel, round: int, camera: int, state: ClientState
) -> tuple[Scores, ClientState]:
    """Evaluate a camera's current model in the round's weather.

    Under local batch norm, its statistics are taken from that weather first; the state that is returned has them.
    """
    model = build_network(experiment, global_model, state.statistics)
    personal = personal_delta(experiment, personal_parameters(experiment, state.personal_frame))
    for delta in filter(None, (global_model.factors, personal)):
        apply_delta(named_tensors(model), delta, experiment.adapter.scale)
    local = experiment.plan.batch_norm.local
    clean = _score(experiment, model, _clear_images(experiment, camera, round), local)
    weather = _score(experiment, model, images_in_round(experiment, camera, round), local)
    return Scores(weather, clean), state.with_statistics(statistics_of(model) if local else {})


def evaluate_base(experiment: Experiment, round: int, camera: int) -> tuple[Scores, Scores]:
    """The base model as it comes (source), and with statistics taken by each camera (zero-byte), in the round's
    weather."""
    model = build_network(experiment, GlobalModel(), {})
    images = (images_in_round(experiment, camera, round), _clear_images(experiment, camera, round))
    source = [_score(experiment, model, view, False) for view in images]
    zero_byte = [_score(experiment, model, view, True) for view in images]
    return Scores(*source), Scores(*zero_byte)


def images_in_round(experiment: Experiment, camera: int, round: int) -> CameraData:
    """A camera's images in the round's weather."""
    weather, plan = experiment.fleet.weather(camera, round), experiment.plan
    images = camera_data.camera_data(experiment.data, experiment.fleet.cameras[camera], plan.seed, weather)
    return _in_time(experiment, camera, round, images)


def images_for_statistics(experiment: Experiment, images: CameraData) -> Tensor:
    """The images that a camera's statistics are taken from: the latest of its window, or all."""
    return images.train[-experiment.plan.batch_norm.window :]  # -0: all


def _clear_images(experiment: Experiment, camera: int, round: int) -> CameraData | None:
    """The same images in clear air; None where the data set has none."""
    images = camera_data.clear(experiment.data, experiment.fleet.cameras[camera])
    return None if images is None else _in_time(experiment, camera, round, images)


def _in_time(experiment: Experiment, camera: int, round: int, images: CameraData) -> CameraData:
    """The images in their order in time, drawn only where it matters: batches are shuffled otherwise."""
    plan = experiment.plan
    if not (plan.correlated or plan.batch_norm.window):
        return images
    rng = stream(plan.seed, "stream", camera, round)
    return camera_data.in_stream_order(images, rng, correlated=plan.correlated)


def _score(experiment: Experiment, model: nn.Module, images: CameraData | None, reestimated: bool) -> float:
    if images is None:
        return float("nan")
    recipe = experiment.plan.recipe
    if reestimated:
        reestimate_statistics(model, images_for_statistics(experiment, images), recipe.precision, recipe.normalization)
    return accuracy(model, images.test, images.test_labels, recipe.precision, recipe.normalization)
