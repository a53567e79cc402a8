"""Laws of GPUs that workers share: Ray cuts one GPU into parts, and joins no parts of two."""

import warnings
from typing import Any

import pytest
import ray
import torch
from hypothesis import given
from hypothesis import strategies as st

from fed_lorac.config.sections import RunConfig
from fed_lorac.errors import RunError
from fed_lorac.grid.ray import cluster


def share_of(workers: int, gpus: int) -> cluster.Share:
    """What a worker takes in a Ray of this process's own, on a machine with so many GPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "resolved_device", lambda device: "cuda")
        patch.setattr(torch.cuda, "device_count", lambda: gpus)
        return cluster._share(RunConfig(workers=workers, threads=1), False)


@given(st.integers(1, 64), st.integers(1, 8))
def test_a_ray_of_ones_own_has_room_for_its_workers_and_no_gpu_holds_more_than_its_part(workers: int, gpus: int):
    share = share_of(workers, gpus)
    on_one = round(1 / share["num_gpus"])
    assert on_one == max(1, -(-workers // gpus))  # as few as can be
    assert cluster._places({"CPU": 64, "GPU": gpus}, share) == min(64, gpus * on_one) >= workers


@pytest.mark.parametrize(("share", "places"), [(1.0, 2), (2 / 3, 2), (0.5, 4), (1 / 3, 6), (1 / 7, 14), (0, 99)])
def test_places_are_counted_gpu_by_gpu(share: float, places: int):
    assert cluster._places({"CPU": 99, "GPU": 2.0}, {"num_cpus": 1, "num_gpus": share}) == places
    if share:
        assert cluster._places({"CPU": 99}, {"num_cpus": 1, "num_gpus": share}) == 0


@pytest.mark.slow
def test_workers_that_do_not_divide_among_the_gpus_all_start():
    """Ray itself says so, with GPUs that it is told of."""
    share = share_of(3, 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*override accelerator", FutureWarning)
        ray.init("local", num_cpus=5, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        assert cluster.room(share) == 4
        with pytest.raises(RunError, match=r"room for 4 workers, and run\.workers = 5\. Set run\.workers = 4"):
            cluster.check_room(share, 5)

        @ray.remote  # here, so that it travels whole: a worker imports no tests
        class Worker:
            @ray.method
            def gpus(self) -> int:
                return len(ray.get_gpu_ids())

        worker: Any = Worker
        actors = [worker.options(**share).remote() for _ in range(3)]
        answers = [actor.gpus.remote() for actor in actors]
        done, waiting = ray.wait(answers, num_returns=3, timeout=60)
        assert len(done) == 3 and not waiting
        assert ray.get(answers) == [1, 1, 1]
    finally:
        ray.shutdown()
