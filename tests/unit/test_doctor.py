"""Laws of the doctor: what it finds is so, and what differs from the driver is said with the node's name."""

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from small_runs import tiny

from fed_lorac.config import RunConfig
from fed_lorac.errors import RunError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.experiment.doctor import Facts, complaints, examine, examine_driver, remarks
from fed_lorac.experiment.machine import WORKER_BYTES, check_workers, free_memory_bytes, usable_cpus
from fed_lorac.grid.examination import Checkup, checkup, examine_cluster
from fed_lorac.reporting.tables import show_checkup
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run


@pytest.fixture(scope="module")
def driver() -> Facts:
    return replace(examine_driver(tiny()), free_memory_bytes=64 * WORKER_BYTES)


def test_an_examination_reports_this_machines_facts():
    config, facts = tiny(), examine(tiny(), "n1")
    experiment = build_experiment(config)
    assert (facts.node, facts.data, facts.base) == ("n1", experiment.data.fingerprint, experiment.base.fingerprint)
    assert (facts.device, facts.precision, facts.threads) == ("cpu", "fp32", 1)
    assert (facts.ray, facts.python) == (version("ray"), platform.python_version())
    assert torch.__version__.partition("+")[0] == facts.torch
    assert facts.cpus >= 1 and facts.cpu and facts.failure == "" and facts.cache_writable
    assert 0 < facts.free_memory_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_free_memory_goes_down_by_what_is_taken():
    def goes_down() -> bool:
        before = free_memory_bytes()
        taken = np.random.default_rng().bytes(400 << 20)  # pages that are alike may take no memory
        return before - free_memory_bytes() > len(taken) // 4

    assert any(goes_down() for _ in range(5))  # others take and give back meanwhile


def test_a_node_like_the_driver_is_fit(driver: Facts):
    node = replace(driver, node="n1", cpus=96, cache="/elsewhere", free_memory_bytes=8 * WORKER_BYTES)
    assert complaints(driver, node, 8) == [] == remarks(driver, node)


@pytest.mark.parametrize(
    ("difference", "problem"),
    [
        ({"fed_lorac": "0.0.9"}, "must have the driver's fed_lorac: it has 0.0.9"),
        ({"torch": ""}, "must have the driver's torch: it has none"),
        ({"ray": "2.54.0"}, "must have the driver's ray"),
        ({"python": "3.9.1"}, "must have the driver's python"),
        ({"data": "f" * 64}, "must have the driver's images: its fingerprint is ffffffffffff"),
        ({"base": "f" * 16}, "must have the driver's base network"),
        ({"device": "cuda"}, "must train where the driver would: it has cuda, the driver cpu"),
        ({"free_memory_bytes": WORKER_BYTES * 3 // 2}, "1 GiB free for each worker: it has 1.5 GiB for 2"),
        ({"cache_writable": False}, "must be able to write its cache"),
        ({"failure": "DataError: no images. Copy them.", "data": ""}, "DataError: no images"),
    ],
)
def test_what_makes_a_node_unfit_is_one_complaint_that_names_it(
    driver: Facts, difference: dict[str, object], problem: str
):
    node = replace(driver, node="n1", **difference)  # type: ignore[arg-type]
    [told] = complaints(driver, node, workers=2)
    assert told.startswith("Node n1") and problem in told


@pytest.mark.parametrize(
    ("difference", "problem"),
    [({"cpu": "Other CPU"}, "another CPU (Other CPU)"), ({"precision": "bf16"}, "trains in bf16, the driver in fp32")],
)
def test_what_may_change_results_is_a_remark(driver: Facts, difference: dict[str, str], problem: str):
    node = replace(driver, node="n1", **difference)  # type: ignore[arg-type]
    [told] = remarks(driver, node)
    assert told.startswith("Node n1") and problem in told and complaints(driver, node) == []


def test_pythons_patch_level_does_not_matter(driver: Facts):
    minor = driver.python.rpartition(".")[0]
    assert complaints(driver, replace(driver, python=f"{minor}.99")) == []


def test_missing_data_is_trouble_and_no_exception(tmp_path: Path):
    facts = examine(tiny(data__name="folder", data__root=str(tmp_path / "none")), "n1")
    assert "DataError" in facts.failure and str(tmp_path) in facts.failure and facts.data == ""
    [told] = complaints(facts, facts)
    assert told == f"Node n1: {facts.failure}"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_trouble_and_no_exception():
    facts = examine(tiny(run__device="cuda", run__precision="auto"), "n1")
    assert facts.failure.startswith('RunError: run.device = "cuda" needs a GPU that PyTorch finds; ')
    assert 'Set run.device = "cpu"' in facts.failure
    assert examine(tiny(run__device="auto")).device == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_missing_gpu_is_said_before_anything_starts(workers: int, tmp_path: Path):
    config = tiny(run__device="cuda", run__workers=workers)
    with pytest.raises(RunError, match="needs a GPU that PyTorch finds"):
        run(config, tmp_path / "run", Watch())
    with pytest.raises(RunError, match="needs a GPU that PyTorch finds"):
        build_experiment(config)
    assert not ray.is_initialized() and not (tmp_path / "run").exists()


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """This thread on one CPU, as `taskset` leaves a process."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_the_cpus_are_those_that_this_process_may_use(one_cpu: None):
    assert usable_cpus() == 1 == examine(tiny()).cpus
    check_workers(RunConfig(workers=1, threads=64))  # results repeat at equal threads only
    with pytest.raises(RunError, match=r"run.workers = 2 need 2 CPUs and 2 GiB, and this machine has 1 CPUs"):
        check_workers(RunConfig(workers=2))
    with pytest.raises(RunError, match=r"2 CPUs and 0.5 GiB, .* Set run.workers = 1, which gives the same results.$"):
        check_workers(RunConfig(workers=2, pool="threads"))


@pytest.mark.parametrize("engine", ["fleet", "flower"])
def test_more_workers_than_fit_are_refused_before_anything_starts(
    engine: str, one_cpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = tiny(run__workers=99, run__engine=engine, data__name="folder", data__root=str(tmp_path / "none"))
    with pytest.raises(RunError, match=r"Set run.workers = 1, which .*--head --num-cpus=99.*ray.address = \"auto\""):
        run(config, tmp_path / "run", Watch())
    found = checkup(config)
    assert "run.workers = 99 need 99 CPUs" in found.complaints[-1]
    assert not ray.is_initialized() and not (tmp_path / "run").exists()


def test_more_workers_than_memory_holds_are_refused(one_cpu: None):
    fit = free_memory_bytes() // WORKER_BYTES
    with pytest.raises(RunError, match=rf"1 GiB of free memory; run.workers = {fit + 9} need"):
        check_workers(RunConfig(workers=fit + 9))


@given(st.dictionaries(st.sampled_from(["node", "torch", "news"]), st.text()))
def test_facts_of_another_version_are_read_as_far_as_they_go(values: dict[str, str]):
    facts = Facts.of(values)
    assert (facts.node, facts.torch) == (values.get("node", ""), values.get("torch", ""))


def test_facts_cross_process_borders_as_plain_values(driver: Facts):
    assert Facts.of(asdict(driver)) == driver
    assert {type(value) for value in asdict(driver).values()} <= {str, int, bool}


def test_one_process_is_examined_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert examine_cluster(tiny(run__workers=1)) == []
    found = checkup(tiny(run__workers=1))
    assert found.nodes == () and found.complaints == () and found.driver.node.endswith("(driver)")


@pytest.mark.parametrize(("threads", "said"), [(1, "fp32, 1 thread per worker"), (3, "fp32, 3 threads per worker")])
def test_the_doctor_says_in_words_what_a_machine_can_do(driver: Facts, threads: int, said: str):
    console = Console(record=True, width=200)
    one = replace(driver, threads=threads)
    show_checkup(console, Checkup(one, (), (), ()))
    show_checkup(console, Checkup(one, (one,), (), ()))
    shown = console.export_text()
    assert said in shown and "This machine can run this config." in shown and "All machines can run this" in shown
