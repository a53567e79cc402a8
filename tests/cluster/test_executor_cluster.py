"""Laws of an executor and its doctor on a cluster of several nodes: raylets of their own on this machine."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray
from executor_apps import Naughty, blocks, sizes
from PIL import Image
from ray.cluster_utils import Cluster
from small_runs import ROOT, tiny

from fed_lorac.config import Config
from fed_lorac.errors import RunError
from fed_lorac.experiment.doctor import Facts
from fed_lorac.grid.examination import checkup
from fed_lorac.grid.ray.executor import RayExecutor
from fed_lorac.runtime.flower_private import task_identity

pytestmark = pytest.mark.slow
CODE = os.pathsep.join([str(ROOT / "tests/helpers"), str(ROOT)])


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """No node yet; each node has the environment of the time at which it is added."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", CODE)
    whole = Cluster(shutdown_at_exit=True)  # should even pytest die
    with task_identity():
        try:
            yield whole
        finally:
            ray.shutdown()
            whole.shutdown()


def add(cluster: Cluster, **settings: object) -> object:
    return cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20, include_dashboard=False, **settings)


def on(cluster: Cluster, **changes: object) -> Config:
    return tiny(run__ray__address=cluster.address, run__workers=2, **changes)


def test_the_work_of_a_node_that_is_removed_moves(cluster: Cluster, tmp_path: Path):
    _, second = add(cluster), add(cluster)
    app = Naughty(tmp_path).told(dict.fromkeys(range(0, 12, 2), "slow"))
    executor = RayExecutor(on(cluster), partial(Naughty, tmp_path), examined=False)
    try:
        answers = executor.run(blocks(12, 2))
        first = next(answers)
        assert len({words[3] for words in app.notes()}) == 2
        cluster.remove_node(second, allow_graceful=False)
        assert sizes([first, *answers]) == dict.fromkeys(range(12), 2)
        app.told({})
        assert sizes(executor.run(blocks(6, 3))) == dict.fromkeys(range(6), 3)
        assert app.attempts() == [[0, 1, 2], [3, 4, 5]] and len({words[3] for words in app.notes()}) == 1
    finally:
        executor.close()
    assert not ray.is_initialized()


def pictures(folder: Path, shade: int) -> Path:
    """A folder of images of two classes, some of this shade."""
    for number in range(40):
        path = folder / "images" / ("light" if number % 2 else "dark") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), shade + number, np.uint8)).save(path)
    return folder


def test_the_doctor_names_the_node_that_is_not_fit(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """One node is whole, one sees other images, one has none, and one lacks the package."""
    monkeypatch.setenv("FED_LORAC_DATA", str(pictures(tmp_path / "ours", 100)))
    add(cluster)
    monkeypatch.setenv("FED_LORAC_DATA", str(pictures(tmp_path / "other", 101)))
    add(cluster)
    monkeypatch.setenv("FED_LORAC_DATA", str(tmp_path / "none"))
    add(cluster)
    monkeypatch.setenv("FED_LORAC_DATA", str(tmp_path / "ours"))
    fake = tmp_path / "fake" / "fed_lorac" / "__init__.py"
    fake.parent.mkdir(parents=True)
    fake.write_text("raise ModuleNotFoundError(\"No module named 'fed_lorac'\")")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "fake"), CODE]))
    add(cluster)
    monkeypatch.setenv("PYTHONPATH", CODE)
    monkeypatch.chdir(tmp_path)  # Ray puts the driver's current folder first on a worker's path

    small = {"fleet__cameras": 2, "fleet__per_round": 2, "fleet__images": 2, "fleet__eval_images": 2}
    config = on(cluster, data__name="folder", data__root="images", data__image_size=8, **small)
    found = checkup(config)
    assert found.driver.data and not found.driver.failure
    assert sorted(bool(facts.failure) for facts in found.nodes) == [False, False, True, True]
    told = "\n".join(found.complaints)
    for facts, problem in zip(found.nodes, map(partial(problem_of, found.driver), found.nodes), strict=True):
        assert (f"Node {facts.node}" in told) == bool(problem), told
        assert problem in told
    assert sorted(map(partial(problem_of, found.driver), found.nodes)) == sorted(["", *PROBLEMS])
    with pytest.raises(RunError, match=r"Node \S+ \([\d.]+, \w{8}\)"):
        RayExecutor(replace(config, run=replace(config.run, workers=4)), partial(Naughty, tmp_path))
    assert not ray.is_initialized()


PROBLEMS: Sequence[str] = ("must have the driver's images", "DataError", "No module named 'fed_lorac'")


def problem_of(driver: Facts, facts: Facts) -> str:
    if not facts.failure:
        return "" if facts.data == driver.data else PROBLEMS[0]
    return PROBLEMS[1] if PROBLEMS[1] in facts.failure else PROBLEMS[2]


def test_a_cluster_that_is_not_there_is_a_run_error() -> None:
    before = time.monotonic()
    with pytest.raises(RunError, match=r"127\.0\.0\.1:1 could not be joined.*ray\.address"):
        RayExecutor(tiny(run__ray__address="127.0.0.1:1", run__workers=2), partial(Naughty, Path()), examined=False)
    assert time.monotonic() - before < 30 and not ray.is_initialized()
