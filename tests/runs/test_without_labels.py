"""Whole runs of cameras that lack labels: no label reaches them, what is seen of them is not billed, and they reset."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from interrupted import Ended, check_equal
from small_runs import rows, tiny
from torch import Tensor

from fed_lorac.api.result import load_run
from fed_lorac.client.agreement import frame_spec
from fed_lorac.client.local_update import LocalUpdate, evaluate, local_updates
from fed_lorac.client.state import ClientState, GlobalModel
from fed_lorac.config import Config, load_config
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.fleet.labelled import Labelled
from fed_lorac.records.columns import GUESSING_CAMERA_COLUMNS, GUESSING_ROUND_COLUMNS
from fed_lorac.registry import OBJECTIVES
from fed_lorac.reporting.compare import compare
from fed_lorac.reporting.watch import Watch
from fed_lorac.seeds import torch_stream
from fed_lorac.simulation.engines import run
from fed_lorac.training.objectives.mixed import Mixed
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.updates import personal_fingerprint

SHIPPED: dict[str, object] = {"model__weights": "shipped", "width": None}  # a trained base is sure of something
WITHOUT = [name for name in OBJECTIVES.names if not OBJECTIVES.make(name).uses_labels]


def updated(experiment: Experiment) -> dict[int, LocalUpdate]:
    """A first round of the first two cameras, side by side."""
    return local_updates(experiment, GlobalModel(), 1, {camera: ClientState() for camera in (0, 1)})


def permuted(experiment: Experiment, which: str = "train") -> Experiment:
    """The same with the labels of each camera's images to adapt on moved on among themselves."""
    labels = experiment.data.labels.copy()
    for camera in experiment.fleet.cameras:
        at = camera.train
        if which != "train":
            known = experiment.plan.labelled.of(camera.id, len(at))  # type: ignore[union-attr]
            at = at[known if which == "known" else ~known]
        labels[at] = np.roll(labels[at], 1)
    return replace(experiment, data=replace(experiment.data, labels=labels))


def frames(updates: dict[int, LocalUpdate]) -> list[bytes]:
    return [update.frame for update in updates.values()]


@pytest.mark.parametrize("objective", WITHOUT)
def test_no_label_reaches_a_camera_that_has_none(objective: str) -> None:
    experiment = build_experiment(tiny(**SHIPPED, local__objective=objective, local__lr=0.01))
    found, other = updated(experiment), updated(permuted(experiment))
    assert frames(found) == frames(other)
    trained = decode(found[0].frame, base=inspect_base(experiment), templates=frame_spec(experiment).templates)
    assert any(float(tensor.abs().max()) > 0 for name, tensor in trained.items() if name.endswith(".B"))
    truths = [update.observed["pseudo_label_precision"] for updates in (found, other) for update in updates.values()]
    assert truths[:2] != truths[2:]  # whoever looks on knows


def inspect_base(experiment: Experiment) -> str:
    return GlobalModel().fingerprint(experiment.base.fingerprint)


@pytest.mark.parametrize("whose", ["images", "cameras"])
def test_under_mixed_only_the_labels_that_there_are_count(whose: str) -> None:
    config = tiny(
        **SHIPPED, local__objective="mixed", local__mixed__whose=whose, local__mixed__labelled_share=0.3, local__lr=0.01
    )
    experiment = build_experiment(config)
    found = updated(experiment)
    assert frames(found) == frames(updated(permuted(experiment, "unknown")))
    assert frames(found) != frames(updated(permuted(experiment, "known")))
    used = {camera: update.observed["labels_used"] for camera, update in found.items()}
    labelled = experiment.plan.labelled
    assert labelled is not None
    assert used == {camera: labelled.of(camera, 50).sum() for camera in used}
    assert set(used.values()) <= ({15} if whose == "images" else {0, 50})


def test_a_larger_share_of_labels_takes_none_away() -> None:
    for whose in ("images", "cameras"):
        masks = [
            np.array([Labelled(share, whose, 7, 3).of(camera, 20) for camera in range(7)])  # type: ignore[arg-type]
            for share in (0.01, 0.2, 0.5, 1.0)
        ]
        assert all((fewer <= more).all() for fewer, more in pairwise(masks))
        counts = [int(mask.sum()) for mask in masks]
        assert counts == ([7, 28, 70, 140] if whose == "images" else [20, 20, 80, 140])


def test_a_camera_that_collapses_sends_a_fresh_adapter_and_says_so(tmp_path: Path) -> None:
    config = tiny(**SHIPPED, local__objective="entropy", local__entropy__largest_class=0.01, run__rounds=1)
    experiment = build_experiment(config)
    for update in updated(experiment).values():
        state = decode(update.frame, base=inspect_base(experiment), templates=frame_spec(experiment).templates)
        assert update.observed["collapsed"] and update.num_examples == 50
        assert all(not tensor.any() for name, tensor in state.items() if not name.endswith(".A"))
    run(config, tmp_path / "run", Watch())
    by_camera = rows(tmp_path / "run" / "cameras.jsonl")
    assert [row["collapsed"] for row in by_camera] == [row["status"] == "counted" for row in by_camera]
    [row] = rows(tmp_path / "run" / "rounds.jsonl")
    assert row["cameras_collapsed"] == 3 and row["accuracy"] == row["accuracy_zero_byte"]


def test_a_camera_that_collapses_keeps_the_statistics_it_came_with() -> None:
    """Its adapter alone goes back: the base's statistics would undo what each camera adapts without any training."""
    collapses = {"local__objective": "entropy", "local__entropy__largest_class": 0.01}
    experiment = build_experiment(tiny(**SHIPPED, **collapses))
    _, came = evaluate(experiment, GlobalModel(), 0, 0, ClientState())
    update = local_updates(experiment, GlobalModel(), 1, {0: came})[0]
    assert update.observed["collapsed"] and came.statistics.keys() == update.state.statistics.keys()
    for name, own in came.statistics.items():
        assert torch.equal(update.state.statistics[name], own)
        assert not torch.equal(own, experiment.base.tensors[name])


def test_labels_alone_reset_no_camera() -> None:
    """At weight 0 the other objective has no say: a camera that its labels have made sure goes on."""
    sure, of_one = 1e-6, torch.tensor([1.0, 0.0, 0.0])
    assert Mixed(weight=0.5).collapsed(sure, of_one) and not Mixed(weight=0.0).collapsed(sure, of_one)


def test_a_camera_that_collapses_sends_the_factors_back_that_it_was_sent() -> None:
    """Where cameras send whole factors, fresh ones would say that nothing was learnt so far."""
    collapses = {"local__objective": "entropy", "local__entropy__largest_class": 0.01}
    experiment = build_experiment(tiny(**SHIPPED, **collapses, strategy__name="flexlora"))
    known, draw = frame_spec(experiment), torch_stream(0, "sent")
    shapes = {key: tuple(shape) for key, shape in known.template.items() if key.endswith((".A", ".B"))}
    sent = {key: 0.01 * torch.randn(shape, generator=draw) for key, shape in shapes.items()}
    told = ClientState().with_personal(
        encode(sent, dtype="fp32", base=personal_fingerprint(experiment.base.fingerprint), templates=known.templates)
    )
    for update in local_updates(experiment, GlobalModel(), 1, {camera: told for camera in (0, 1)}).values():
        state = decode(update.frame, base=inspect_base(experiment), templates=known.templates)
        assert update.observed["collapsed"]
        assert all(torch.equal(state.pop(key), tensor) for key, tensor in sent.items())
        assert not any(tensor.any() for tensor in state.values())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A run by a teacher that follows, with cameras away and lost."""
    config = tiny(
        **SHIPPED, run__rounds=3, local__objective="consistency", local__consistency__restore=0.01, block_size=2
    )
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(config, folder, Watch())
    return config, folder


@pytest.mark.slow
def test_it_goes_on_after_an_interruption_to_the_same_end(whole: tuple[Config, Path], tmp_path: Path) -> None:
    config, folder = whole
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", Ended(1))
    run(config, tmp_path / "cut", Watch(), resume=True)
    check_equal(tmp_path / "cut", folder)


def test_the_ledger_has_columns_for_it_and_that_of_labels_has_none(whole: tuple[Config, Path], tmp_path: Path) -> None:
    _, folder = whole
    labels = tmp_path / "labels"
    run(tiny(**SHIPPED, run__rounds=3, block_size=2), labels, Watch())
    for file, columns in (("rounds", GUESSING_ROUND_COLUMNS), ("cameras", GUESSING_CAMERA_COLUMNS)):
        with_, without = (rows(path / f"{file}.jsonl")[0] for path in (folder, labels))
        assert list(with_) == [*without, *columns]
    for row in rows(folder / "cameras.jsonl"):
        counted = row["status"] == "counted"
        assert (row["labels_used"], row["collapsed"], row["pseudo_label_coverage"]) == (
            0,
            False,
            1 if counted else None,
        )
    # What a simulation sees is not billed: the same messages with and without.
    billed = [[row[key] for key in row if key.endswith("_bytes")] for row in rows(folder / "rounds.jsonl")]
    assert billed == [[row[key] for key in row if key.endswith("_bytes")] for row in rows(labels / "rounds.jsonl")]
    found = load_run(folder)
    assert list(found.rounds.columns[-3:]) == list(GUESSING_ROUND_COLUMNS)
    assert found.cameras["online_accuracy"].dtype == np.float64
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["label"].endswith("consistency") and summary["objective"] == "consistency"
    assert summary["without_labels"]["labels_used"] == 0
    assert "merged svd, consistency |" in compare([folder, labels])


def test_what_is_seen_is_what_the_truth_says(whole: tuple[Config, Path]) -> None:
    """Online accuracy of a first step on all images: that of the base under the batch's own statistics."""
    config = tiny(**SHIPPED, local__objective="entropy", local__batch_size=50, local__lr=1e-9)
    experiment = build_experiment(config)
    found = updated(experiment)
    for camera, update in found.items():
        view = experiment.images(camera, experiment.fleet.weather(camera, 1))
        guesses = predicted(experiment, view.train)
        expected = float((guesses == view.train_labels).double().mean())
        assert update.observed["online_accuracy"] == update.observed["pseudo_label_precision"] == expected


def predicted(experiment: Experiment, images: Tensor) -> Tensor:
    from fed_lorac.training.batches import to_input

    with torch.no_grad():
        model = experiment.base.model.train()
        found = model(to_input(images, normalization=experiment.base.normalization)).argmax(1)
        model.eval()
    return torch.as_tensor(found)


@pytest.mark.parametrize("strategy", ["local-only", "clustered"])
def test_cameras_keep_what_they_learnt_without_labels(tmp_path: Path, strategy: str) -> None:
    config = tiny(**SHIPPED, strategy__name=strategy, local__objective="entropy-filtered", local__lr=0.01)
    run(config, tmp_path, Watch())
    assert all(row["labels_used"] == 0 for row in rows(tmp_path / "cameras.jsonl"))


MINE = '''
from dataclasses import dataclass
from fed_lorac.runtime.settings import setting
from fed_lorac.training.objectives.label_free import LabelFree

@dataclass(frozen=True)
class Sharpened(LabelFree):
    """The largest probability is raised."""

    source = "Smith et al. 2027, arXiv 2701.00001"
    power: float = setting(1.0, "what the largest probability is raised to", above=0)

    def losses(self, batch):
        p = batch.logits.float().softmax(-1)
        return self.guessed(-(p.max(-1).values ** self.power).mean(0), p)
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "sharpened.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "sharpened:Sharpened"


def test_an_objective_of_ones_own_is_named_alone_or_within_mixed(mine: str, tmp_path: Path) -> None:
    config = tiny(**SHIPPED, local__objective=mine, local__options__power=2.0, run__rounds=1)
    run(config, tmp_path / "alone", Watch())
    assert json.loads((tmp_path / "alone" / "summary.json").read_text())["label"].endswith(mine)
    within = tiny(**SHIPPED, local__objective="mixed", local__unlabelled=mine, local__options__power=2.0, run__rounds=1)
    assert within.local.built_objective().rest == config.local.built_objective()
    assert load_config(None, within.to_flat()) == within


def test_what_cannot_work_is_refused_at_the_start() -> None:
    for settings, law in (
        ({"local.objective": "entropy", "local.batch_size": 1}, "needs several images"),
        ({"local.objective": "mixed", "local.batch_size": 1}, "needs several images"),
        ({"local.mixed.labelled_share": 0.5}, r"\[local\.mixed\] is for"),
        ({"local.objective": "entropy", "local.mixed.weight": 2}, r"\[local\.mixed\] is for"),
        (
            {"local.unlabelled": "consistency"},
            r"local\.unlabelled has no meaning",
        ),
        ({"local.objective": "entropies"}, "Did you mean 'entropy'"),
        ({"local.objective": "mixed", "local.unlabelled": "labels"}, "must be one of entropy"),
        ({"local.objective": "pseudo-label", "local.pseudo-label.threshold": 1.0}, "below 1"),
    ):
        with pytest.raises(ConfigError, match=law):
            load_config(None, settings)
    both = load_config(None, {"local.objective": "mixed", "local.unlabelled": "consistency",
                              "local.consistency.views": 1, "local.mixed.labelled_share": 0.5})  # fmt: skip
    assert set(both.local.tables) == {"mixed", "consistency"} and both.local.built_objective().rest.views == 1
    assert load_config(None, both.to_flat()) == both
