"""The scenario under pfl-research: FederatedAveraging over a SimulatedBackend, in one of several processes. Knows pfl's
algorithm, data and metrics; what a camera does is in `turn`."""

import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.common_types import Population
from pfl.context import CentralContext
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.data.user_state import InMemoryUserStateStorage
from pfl.exception import UserNotFoundError
from pfl.hyperparam import HyperParam, NNTrainHyperParams
from pfl.internal.ops.selector import get_framework_module
from pfl.metrics import Metrics, StringMetricName, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn

from peers.network import base_network, load, statistics, trained
from peers.settings import Found, Settings, environment, images_of
from peers.turn import SCORES, augmented, learning_rate, measured, sgd


class Network(nn.Module):
    """The network, with the loss that pfl asks for."""

    metrics = None  # what pfl would measure in every round; what cameras measure here is `measured`

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.network(x), y)


class Camera(Dataset):  # type: ignore[misc]
    """A user's images in weather: shuffled, cropped and flipped anew in each epoch."""

    def __init__(self, camera: int) -> None:
        self.images = images_of(camera, "weather")
        super().__init__(raw_data=(self.images.train, self.images.train_labels), user_id=str(camera))
        self.generator = torch.Generator().manual_seed(camera)

    def iter(self, batch_size: int | None) -> Iterator[list[Tensor]]:
        for batch in torch.randperm(len(self), generator=self.generator).split(batch_size or len(self)):
            yield [augmented(self.images.train[batch], self.generator), self.images.train_labels[batch]]


class Cosine(HyperParam, TrainingProcessCallback):  # type: ignore[misc]
    """The learning rate of the round; the iteration before the first round is the base's evaluation."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.number = settings, 0

    def after_central_iteration(self, aggregate_metrics: Metrics, model: Any, **_: int) -> tuple[bool, Metrics]:
        self.number += 1
        return False, Metrics()

    def value(self) -> float:
        return learning_rate(self.settings, max(1, self.number))


class Laps(TrainingProcessCallback):  # type: ignore[misc]
    """How long every iteration took, and what was measured in it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.scores: list[dict[str, float]] = []
        self._began = 0.0

    def on_train_begin(self, *, model: Any) -> Metrics:
        self._began = time.perf_counter()
        return Metrics()

    def after_central_iteration(self, aggregate_metrics: Metrics, model: Any, **_: int) -> tuple[bool, Metrics]:
        now = time.perf_counter()
        self.seconds.append(now - self._began)
        self.scores.append(
            {key: float(aggregate_metrics[key].overall_value) for key in SCORES if key in aggregate_metrics}
        )
        self._began = now
        return False, Metrics()


class Adaptation(FederatedAveraging):  # type: ignore[misc]
    """FedAvg whose first and last iterations measure, and whose users keep their batch-norm statistics."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings, self.kept = settings, InMemoryUserStateStorage()

    def get_next_central_contexts(
        self, model: Any, iteration: int, algorithm_params: Any, model_train_params: Any, model_eval_params: Any = None
    ) -> tuple[tuple[CentralContext, ...] | None, Any, Metrics]:
        if iteration == algorithm_params.central_num_iterations:
            return None, model, Metrics()
        measures = iteration in {0, algorithm_params.central_num_iterations - 1}
        context = CentralContext(
            current_central_iteration=iteration,
            do_evaluation=measures,
            cohort_size=self.settings.cameras,
            population=Population.VAL if measures else Population.TRAIN,
            model_train_params=model_train_params.static_clone(),
            algorithm_params=algorithm_params.static_clone(),
        )
        return (context,), model, Metrics()

    def process_aggregated_statistics_from_all_contexts(
        self, stats_context_pairs: Any, aggregate_metrics: Metrics, model: Any
    ) -> tuple[Any, Metrics]:
        if not stats_context_pairs:
            return model, Metrics()  # nobody trained
        pairs = stats_context_pairs
        result: tuple[Any, Metrics] = super().process_aggregated_statistics_from_all_contexts(
            pairs, aggregate_metrics, model
        )
        return result

    def simulate_one_user(self, model: Any, user_dataset: Camera, central_context: Any) -> tuple[Any, Metrics]:
        user, network = user_dataset.user_id, model.pytorch_model.network
        load(network, {}, self._statistics_of(user))
        statistics_and_metrics: tuple[Any, Metrics]
        if central_context.population == Population.TRAIN:
            statistics_and_metrics = super().simulate_one_user(model, user_dataset, central_context)
        else:
            baseline = central_context.current_central_iteration == 0
            found = measured(network, int(user), self.settings, baseline=baseline)
            metrics = Metrics([(StringMetricName(key), Weighted(value, 1)) for key, value in found.items()])
            statistics_and_metrics = None, metrics
        self.kept.save_state({name: tensor.clone() for name, tensor in statistics(network).items()}, user)
        return statistics_and_metrics

    def _statistics_of(self, user: str) -> dict[str, Tensor]:
        try:
            return self.kept.load_state(user)  # type: ignore[no-any-return]
        except UserNotFoundError:
            return {}


def work(settings: Settings) -> None:
    """One worker's part; that of rank 0 says what came of it."""
    torch.set_num_threads(settings.threads)
    network = base_network(settings)
    parameters = [p for p in network.parameters() if p.requires_grad]
    model = PyTorchModel(
        model=Network(network),
        local_optimizer_create=lambda _, lr: sgd(parameters, lr, settings),
        central_optimizer=torch.optim.SGD(parameters, lr=1.0),
        amp_dtype=torch.bfloat16 if settings.precision == "bf16" else None,
    )
    users = [str(camera) for camera in range(settings.cameras)]
    # A silo a worker: a camera's images and statistics stay in one process.
    sampler = get_user_sampler("minimize_reuse", users, num_silos=settings.workers)
    cameras = FederatedDataset(cache(lambda user: Camera(int(user))), sampler)
    backend = SimulatedBackend(training_data=cameras, val_data=cameras, postprocessors=[WeightByDatapoints()])
    rate, laps = Cosine(settings), Laps()
    Adaptation(settings).run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=settings.rounds + 2,
            evaluation_frequency=settings.rounds + 1,
            train_cohort_size=settings.cameras,
            val_cohort_size=settings.cameras,
        ),
        backend=backend,
        model=model,
        model_train_params=NNTrainHyperParams(
            local_batch_size=settings.batch_size,
            local_num_epochs=settings.epochs,
            local_learning_rate=rate,
            local_max_grad_norm=settings.clip_norm,
        ),
        callbacks=[rate, laps],
    )
    if get_framework_module().distributed.global_rank == 0:
        _say(laps, sum(tensor.numel() for tensor in trained(network).values()))


def _say(laps: Laps, trainable: int) -> None:
    first, last = laps.scores[0], laps.scores[-1]
    Found(
        train_seconds=laps.seconds[1:-1],
        evaluation_seconds=laps.seconds[0] + laps.seconds[-1],
        trainable=trainable,
        source=first["source-weather"],
        zero_byte=first["accuracy-weather"],
        accuracy=last["accuracy-weather"],
        accuracy_clean=last["accuracy-clear"],
        environment=environment("pfl", "loralib"),
    ).write()
