"""Every benchmark runs, in a setting that takes seconds, and prints one JSON object with the keys it promises.

What they measure is not asserted: that hangs on the machine and on what else runs there.
"""

import ast
import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from benchmark_runs import ran
from small_runs import ROOT, environment

BENCHMARKS = ROOT / "benchmarks"
TINY_CAMERAS = [
    "-c",
    "model.weights=none",
    "-c",
    "width=4",
    "-c",
    "local.epochs=1",
    "-c",
    "local.batch_size=25",
]

needs_loralib = pytest.mark.skipif(
    find_spec("loralib") is None, reason='the plain arms need loralib: pip install -e ".[benchmark]"'
)


def positive(*values: float) -> bool:
    return all(math.isfinite(value) and value > 0 for value in values)


def test_corruptions_have_a_rate_at_every_severity() -> None:
    rates = ran("corruptions", "--images", "2")["images_per_s"]
    assert len(rates) == 19
    assert all(positive(*by_severity.values()) for by_severity in rates.values())


@pytest.mark.slow
def test_evaluation_compares_what_is_done_once_with_what_is_done_for_each() -> None:
    found = ran("evaluation", "--repeats", "1", "-c", "fleet.cameras=3", "-c", "fleet.per_round=3", *TINY_CAMERAS)
    assert positive(found["base_ratio"], found["network_ratio"])


@pytest.mark.slow
def test_start_compares_a_run_with_its_imports() -> None:
    found = ran("start", "--repeats", "1")
    assert positive(found["again_ratio"], found["first_ratio"])


@pytest.mark.slow
def test_overhead_is_given_in_ms_a_camera() -> None:
    found = ran("overhead", "--cameras", "20", "--repeats", "1")
    assert positive(found["ms_a_camera"], found["round_ms_a_camera"], found["driver_round_ms_a_camera"])


@pytest.mark.slow
def test_workers_are_compared_with_one_alone_and_with_as_many_runs_at_once() -> None:
    few = ("fleet.cameras=4", "fleet.per_round=4", "fleet.images=50", "fleet.eval_images=40")
    small = [*(word for one in few for word in ("-c", one)), *TINY_CAMERAS]
    found = ran("workers", "--digits", "--rounds", "4", "--repeats", "1", *small)
    for pool in ("threads", "ray"):
        assert positive(*(found[pool][key] for key in ("efficiency", "of_what_the_machine_allows", "memory_mib")))


@pytest.mark.slow
def test_export_latency_compares_runtimes_and_counts_the_same_operations() -> None:
    found = ran("export_latency", "--network", "resnet8", "--repeats", "2", "--calls", "1")
    assert found["latency_ratio"].keys() == {"torch", "torchscript", "onnxruntime"}
    assert positive(found["attached_ratio"], *found["latency_ratio"].values())
    assert found["operations"]["exported"] == found["operations"]["plain"]


@pytest.mark.slow
def test_scale_compares_fleets() -> None:
    found = ran("scale", "--cameras", "200", "9000", "--per-round", "3", "--rounds", "4")
    assert positive(found["round_ratio"], found["start_s"], found["resume_s"], found["peak_mib"])
    assert [row["cameras"] for row in found["fleets"]] == [200, 9000]


@pytest.mark.slow
def test_aggregate_gives_every_downlink_a_rate_and_a_distance_to_bandwidth() -> None:
    found = ran("aggregate", "--model", "resnet8", "--width", "4", "--cameras", "6", "--mib", "8")
    assert set(found["cameras_per_s"]) == set(found["bandwidth_ratio"]) == {"svd", "stack", "dense"}
    assert positive(*found["cameras_per_s"].values(), *found["bandwidth_ratio"].values())


@pytest.mark.slow
def test_distance_to_limit_is_a_ratio() -> None:
    found = ran("distance_to_limit", "--digits", "--cameras", "3", "--images", "25", "--rounds", "1", *TINY_CAMERAS)
    assert positive(found["ratio"])
    assert found["scenario"]["data"] == "digits"


@pytest.mark.slow  # Flower's runtime starts a Ray
@needs_loralib
@pytest.mark.parametrize("peer", ["flower", "blazefl", "pfl"])
def test_fleet_vs_peers_gives_each_peer_its_ratios(peer: str) -> None:
    package = {"flower": "flwr"}.get(peer, peer)
    if find_spec(package) is None:
        pytest.skip(f'{peer} is not installed: pip install -e ".[peers]", or an environment of its own')
    small = ["--digits", "--cameras", "3", "--images", "25", "--eval-images", "10", "--rounds", "1", "--repeats", "1"]
    found = ran("fleet_vs_peers", *small, "--peers", peer, "--workers", "2", "-c", "local.epochs=1")
    assert positive(*found[peer].values())
    assert found["best_peer"] == found[peer]
    ours, theirs = found["arms"]["fleetgrid"], found["arms"][peer]
    assert positive(ours["share_of_peak"], theirs["share_of_peak"])
    assert ours["source"] == pytest.approx(theirs["source"], abs=0.1), "one base on the same images, but for rounding"


@needs_loralib
def test_peers_start_from_the_same_network_and_train_what_lora_c_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    from fed_lorac.models import build
    from fed_lorac.models.weights import shipped_path

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from peers.network import base_network, trained
    from peers.settings import Settings

    weights = str(shipped_path("resnet20"))
    settings = Settings(folder=str(tmp_path), weights=weights, cameras=1, rounds=1)
    ours = build("resnet20")
    ours.load_state_dict(load_file(weights))
    theirs = base_network(settings)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(theirs.eval()(x), ours.eval()(x))
    # R = r*K for r = 1: three rows for each 3 x 3 kernel, one for a 1 x 1.
    assert sum(tensor.numel() for tensor in trained(theirs).values()) == 12_880


def test_a_gpu_that_is_asked_for_and_absent_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "distance_to_limit.py"), "--json", "--digits", "--device", "cuda"],
        env=environment(CUDA_VISIBLE_DEVICES=""),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--device cuda needs a CUDA device" in done.stderr


def test_every_benchmark_says_how_it_is_called() -> None:
    for file in BENCHMARKS.glob("*.py"):
        doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        assert file.name == "common.py" or f"benchmarks/{file.name}" in doc, f"{file.name} does not say how to run it"


def test_kept_results_say_where_they_come_from() -> None:
    for file in (BENCHMARKS / "results").glob("*.json"):
        found = json.loads(file.read_text(encoding="utf-8"))
        assert {"date", "command", "machine", "device", "versions"} <= found.keys(), file.name
