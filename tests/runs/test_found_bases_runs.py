"""Runs whose server finds bases of gradients: one round asks, its update tells, and cores stand between those after."""

from pathlib import Path

import numpy as np
import pytest
from cut_runs import tensors_moved_by_the_adapter
from interrupted import Ended, check_equal
from overheard import Overheard, overheard
from safetensors.torch import load_file
from small_runs import rows, tiny

from fed_lorac.adapters.algebra.factors import to_view
from fed_lorac.adapters.bases import FoundBases
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run
from fed_lorac.simulation.plan import configs_of, sizes_of
from fed_lorac.wire.frame import decode
from fed_lorac.wire.updates import global_fingerprint

RUN: dict[str, object] = {
    "run__rounds": 3,
    "adapter__method": "lora-xs",
    "bases": "gradient",
    "strategy__name": "fedavg",
    "fleet__images": 25,
    "fleet__eval_images": 20,
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Overheard]:
    folder = tmp_path_factory.mktemp("bases") / "run"
    return folder, overheard(tiny(**RUN), folder)


def test_the_first_round_asks_for_gradients_and_tells_bases_and_both_are_billed(told: tuple[Path, Overheard]) -> None:
    first, *later = rows(told[0] / "rounds.jsonl")
    convs = [p for n, p in build_experiment(tiny(**RUN)).base.model.named_parameters() if p.ndim == 4][1:]
    views = [to_view(weight).shape for weight in convs]
    assert first["uplink_payload_bytes"] == first["cameras_counted"] * 2 * sum(map(np.prod, views))
    assert first["downlink_payload_bytes"] == 4 * 2 * sum(2 * (rows_ + cols) for rows_, cols in views)
    assert first["aggregation_error"] is None and not first["skipped"]
    for row in later:
        assert row["uplink_payload_bytes"] == row["cameras_counted"] * 4 * (len(convs) * 4 + 4 * 27 + 10 * 16)
        assert row["aggregation_error"] < 1e-6


def test_bases_are_of_the_mean_of_the_cameras_gradients(told: tuple[Path, Overheard]) -> None:
    """The other route: NumPy's SVD in float64 of the mean of the frames, to the digits of fp16."""
    base = global_fingerprint(build_experiment(tiny(**RUN)).base.fingerprint, 0)
    bases = FoundBases.told(decode(told[1].updates()[1], base=base, templates=told[1].templates))
    assert bases is not None and len(bases.of) == 8
    states = told[1].states(1, base)
    for name, (U, V) in bases.of.items():
        mean = sum(weight * to_view(state[f"{name}.weight"]).double().numpy() for _, state, weight in states)
        u, s, vh = np.linalg.svd(mean)
        if s[1] < 1.5 * s[2]:  # what two vectors span is then not well determined
            continue
        assert np.abs(U.numpy() @ U.numpy().T - u[:, :2] @ u[:, :2].T).max() < 2e-3
        assert np.abs(V.numpy().T @ V.numpy() - vh[:2].T @ vh[:2]).max() < 2e-3


def test_updates_are_cores_between_them(told: tuple[Path, Overheard]) -> None:
    """What the run ends with, in NumPy: the sum of the updates' U S V, and the base with it."""
    base = build_experiment(tiny(**RUN)).base.fingerprint
    updates = told[1].updates()
    bases = FoundBases.told(decode(updates[1], base=global_fingerprint(base, 0), templates=told[1].templates))
    adapter = load_file(told[0] / "adapter.safetensors")
    assert bases is not None
    for name, (U, V) in bases.of.items():
        total = np.zeros((len(U), V.shape[1]))
        for round in (2, 3):
            state = decode(updates[round], base=global_fingerprint(base, round - 1), templates=told[1].templates)
            total += U.double().numpy() @ state[f"{name}.S"].double().numpy() @ V.double().numpy()
        dense = f"{name}.weight" in adapter
        said = adapter[f"{name}.weight"] if dense else adapter[f"{name}.B"].double() @ adapter[f"{name}.A"].double()
        found = said.double().numpy().reshape(total.shape)
        assert np.abs(found - total).max() < 1e-6 * max(1.0, np.abs(total).max())


@pytest.mark.parametrize("after", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_is_interrupted_goes_on_to_the_same_end(
    tmp_path: Path, told: tuple[Path, Overheard], after: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tiny(**RUN), tmp_path / "cut", Ended(after))
    run(tiny(**RUN), tmp_path / "cut", Ended(0), resume=True)
    check_equal(tmp_path / "cut", told[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"strategy__name": "merged", "strategy__merged__downlink": "dense"},
        {"strategy__name": "clustered"},
        {"adapter__method": "norm-affine + lora-xs"},
        {"codec__up": "int8", "codec__down": "int8"},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_strategies_and_codecs_go_on_from_the_bases(tmp_path: Path, settings: dict[str, object]) -> None:
    config = tiny(**(RUN | settings))
    run(config, tmp_path / "run", Watch())
    assert all(not row["skipped"] and not row["reasons"] for row in rows(tmp_path / "run" / "rounds.jsonl"))
    if "codec__up" not in settings and settings.get("strategy__name") != "clustered":
        assert len(tensors_moved_by_the_adapter(config, tmp_path / "run")) >= 10


@pytest.mark.slow
def test_cameras_that_were_away_learn_of_the_bases_when_they_are_back(tmp_path: Path) -> None:
    """Some miss the bases and updates after them, and are sent what they lack, or the whole model, bases included."""
    away = {"fleet__devices": "limited", "availability": "0.5", "dropout": "0.3", "strategy__quorum": "0.1"}
    run(tiny(**(RUN | {"run__rounds": 8}), **away), tmp_path / "run", Watch())
    found = rows(tmp_path / "run" / "rounds.jsonl")
    reasons = {reason for row in found for reason in row["reasons"]}
    assert reasons <= {"no reply", "dropped out"}


def test_a_plan_does_not_guess_the_round_that_finds_bases() -> None:
    config = tiny(**RUN)
    methods, _ = configs_of(config, ("own",))
    [own] = sizes_of(build_experiment(config), methods)
    assert isinstance(own, str) and own.startswith("own: its bases are found in the run")


def test_bases_are_of_gradients_that_are_sent() -> None:
    with pytest.raises(ConfigError, match="they send nothing"):
        tiny(**(RUN | {"strategy__name": "local-only"}))
