"""What a camera sees in a round, and how good networks are on it. Knows models, weather and statistics; not training,
frames or Flower."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from fed_lorac.adapters.deltas import apply_changes
from fed_lorac.client.global_model import RunningBase, own_change, running_model
from fed_lorac.experiment.experiment import Site
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
    site: Site, running: RunningBase, round: int, camera: int, statistics: Statistics, own: Mapping[str, Tensor]
) -> tuple[Scores, Statistics]:
    """Measure the camera's current model in the round's weather, and under local batch norm with that weather's
    statistics, which are returned. `own` is the part of the model that is the camera's alone."""
    model = running_model(site, running, statistics)
    tensors = named_tensors(model)
    apply_changes(tensors, running.factors, site.adapter.scale)
    apply_changes(tensors, own_change(site, own), site.adapter.scale)
    local = site.config.batch_norm.mode == "local"
    clean = _score(site, model, _seen_clear(site, camera, round), local)
    weather = _score(site, model, seen(site, camera, round), local)
    return Scores(weather, clean), statistics_of(model) if local else {}


def baseline(site: Site, round: int, camera: int) -> tuple[Scores, Scores]:
    """The starting base as it comes (source), and with statistics re-estimated by each camera (zero-byte), in the
    round's weather."""
    model = running_model(site, RunningBase(), {})
    images = (seen(site, camera, round), _seen_clear(site, camera, round))
    source = [_score(site, model, view, False) for view in images]
    zero_byte = [_score(site, model, view, True) for view in images]
    return Scores(*source), Scores(*zero_byte)


def seen(site: Site, camera: int, round: int) -> views.View:
    """A camera's images in the round's weather."""
    weather = site.fleet.weather(camera, round)
    return _as_they_come(
        site, camera, round, views.in_weather(site.data, site.fleet.cameras[camera], site.config.run.seed, weather)
    )


def recent(site: Site, view: views.View) -> Tensor:
    """The images that a camera's statistics are taken from: the latest of its window, or all."""
    return view.train[-site.config.batch_norm.window :]  # -0: all


def _seen_clear(site: Site, camera: int, round: int) -> views.View | None:
    """The same images in clear air; None where the data set has none."""
    view = views.clear(site.data, site.fleet.cameras[camera])
    return None if view is None else _as_they_come(site, camera, round, view)


def _as_they_come(site: Site, camera: int, round: int, view: views.View) -> views.View:
    """A view in its order in time, which is drawn only where it matters: batches are shuffled otherwise."""
    correlated = site.config.fleet.stream == "correlated"
    if not (correlated or site.config.batch_norm.window):
        return view
    return views.in_stream_order(view, stream(site.config.run.seed, "stream", camera, round), correlated=correlated)


def _score(site: Site, model: nn.Module, view: views.View | None, reestimated: bool) -> float:
    if view is None:
        return float("nan")
    if reestimated:
        reestimate_statistics(model, recent(site, view), site.precision, site.base.normalization)
    return accuracy(model, view.test, view.test_labels, site.precision, site.base.normalization)
