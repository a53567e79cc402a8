"""The starting base: where it comes from, and whether it has seen what the cameras see."""

import json
import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_runs import tiny
from torch import Tensor

from fed_lorac.config import Config
from fed_lorac.data.datasets import Dataset
from fed_lorac.data.inventory import inventory
from fed_lorac.errors import ConfigError, DataError, RunError
from fed_lorac.experiment.base_model import (
    BaseModel,
    load_base_model,
    provenance,
    saw_fleet_images,
    tell_notes,
    train_base,
)
from fed_lorac.experiment.base_weights import remedy
from fed_lorac.experiment.build import open_data
from fed_lorac.models import build
from fed_lorac.models.fingerprints import fingerprint, named_tensors
from fed_lorac.models.weights import read_checkpoint
from fed_lorac.training.accuracy import accuracy
from fed_lorac.training.batches import to_input
from fed_lorac.training.pretrain import RECIPE
from fed_lorac.wire.updates import global_fingerprint


def ten_images(share: float = 0.6, name: str = "cifar10") -> Dataset:
    """Ten images, of which the cloud has this share and the fleet the rest, less two to evaluate."""
    cloud, fleet, rest = np.split(np.arange(10), [int(8 * share), 8])
    return Dataset(name, np.zeros((10, 32, 32, 3), np.uint8), np.zeros(10, np.int64), ("a",), cloud, fleet, rest, "f")


@pytest.mark.parametrize(
    ("said", "data_set", "share", "saw"),
    [
        ({"data_set": "cifar10", "cloud_share": "0.5"}, "cifar10", 0.5, "no"),
        ({"data_set": "cifar10", "cloud_share": "0.75"}, "cifar10", 0.5, "yes"),
        ({"data_set": "cifar10", "cloud_share": "1.0"}, "cifar10c", 0.5, "no"),
        ({"data_set": "cifar10", "cloud_share": "1.0"}, "digits", 0.5, "no"),
        ({"data_set": "folder", "cloud_share": "0.6"}, "folder", 0.5, "unknown"),
        ({"data_set": "folder", "cloud_share": "0.75", "data_fingerprint": "f"}, "folder", 0.5, "yes"),
        ({}, "cifar10", 0.5, "unknown"),
    ],
)
def test_a_base_says_whether_it_saw_the_fleets_images(
    said: Mapping[str, str], data_set: str, share: float, saw: str
) -> None:
    config = Config.from_flat({"data.name": data_set, "data.root": "somewhere"} if data_set != "digits" else {})
    assert saw_fleet_images(said, config, ten_images(share)) == saw


def test_a_bases_fingerprint_follows_its_values_names_and_shapes_only() -> None:
    tensors = {"a": torch.ones(2, 3), "b": torch.zeros(4)}
    one = fingerprint(tensors)
    assert (
        one == fingerprint(dict(reversed(tensors.items()))) == fingerprint({k: v.double() for k, v in tensors.items()})
    )
    assert (
        len({one, fingerprint({"a": torch.ones(3, 2), "b": torch.zeros(4)}), fingerprint({"a": torch.ones(2, 3)})}) == 3
    )
    assert global_fingerprint(one, 1) != global_fingerprint(one, 2)


def test_a_base_is_trained_once_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_LORAC_CACHE", str(tmp_path))
    config = tiny(model__weights="pretrain", model__pretrain__epochs=1)
    data = open_data(config)
    first = load_base_model(config, data)
    (file,) = tmp_path.glob("base-*.safetensors")
    stamp = file.stat().st_mtime_ns - 40 * 86_400 * 10**9
    os.utime(file, ns=(stamp, stamp))
    again = load_base_model(config, data)
    [item] = (item for item in inventory(tmp_path) if item.path == file)
    assert item.built == pytest.approx(stamp / 1e9) and time.time() - item.used < 3600
    assert (first.fingerprint, first.saw_fleet_images) == (again.fingerprint, "no")
    assert file.stat().st_mtime_ns == stamp
    assert load_base_model(replace(config, run=replace(config.run, seed=7)), data).fingerprint != first.fingerprint


def test_a_base_is_the_same_whatever_other_bases_were_trained_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(model__weights="pretrain", model__pretrain__epochs=1)
    data = open_data(config)
    other = replace(config, local=replace(config.local, augment="reflect_flip"))
    fewer = replace(data, cloud=data.cloud[::2])
    found = []
    for cache, order in (("a", (0, 1, 2)), ("b", (2, 1, 0))):
        monkeypatch.setenv("FED_LORAC_CACHE", str(tmp_path / cache))
        asked = ((config, data), (other, data), (config, fewer))
        found.append({which: load_base_model(*asked[which]).fingerprint for which in order})
    assert found[0] == found[1] and len(set(found[0].values())) == 3


def test_training_goes_on_from_a_checkpoint_and_says_so(tmp_path: Path) -> None:
    config = tiny()
    data = open_data(config)
    train_base(config, data, tmp_path / "a.safetensors", epochs=1)
    further = replace(config, model=replace(config.model, weights=str(tmp_path / "a.safetensors")))
    start = load_base_model(further, data)
    said = train_base(further, data, tmp_path / "b.safetensors", lr=1e-9, epochs=1)
    assert said["continued_from"] == start.fingerprint == fingerprint(named_tensors(start.model))
    a, b = (read_checkpoint(tmp_path / f"{name}.safetensors").tensors for name in "ab")
    assert torch.allclose(a["conv1.weight"], b["conv1.weight"], atol=1e-4)
    assert not torch.equal(a["bn1.running_mean"], b["bn1.running_mean"])


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_what_is_held_out_is_not_trained_on_and_the_test_images_are_not_looked_at(share: float, tmp_path: Path) -> None:
    config, data = tiny(), open_data(tiny())
    labels = data.labels[data.cloud]
    last = np.concatenate(
        [(at := np.flatnonzero(labels == label))[round((1 - share) * len(at)) :] for label in range(10)]
    )
    held = data.cloud[np.sort(last)]
    rest = np.setdiff1d(data.cloud, held)
    garbled = data.images.copy()
    garbled[data.evaluation] = 0
    said = train_base(config, replace(data, images=garbled), tmp_path / "a.safetensors", epochs=2, held_out=share)
    train_base(config, replace(data, cloud=rest), tmp_path / "b.safetensors", epochs=2)
    a, b = (read_checkpoint(tmp_path / f"{name}.safetensors").tensors for name in "ab")
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    base = load_base_model(replace(config, model=replace(config.model, weights=str(tmp_path / "a.safetensors"))), data)
    images, own = (torch.from_numpy(of[held]) for of in (data.images, data.labels))
    assert said["held_out_accuracy"] == f"{accuracy(base.model, images, own):.4f}" and "test_accuracy" not in said


def test_a_share_that_holds_nothing_out_is_refused(tmp_path: Path) -> None:
    data = open_data(tiny())
    for share in (1e-6, 1 - 1e-6):
        with pytest.raises(ConfigError, match="leaves images to train on and to score"):
            train_base(tiny(), data, tmp_path / "a.safetensors", epochs=1, held_out=share)
    assert not list(tmp_path.iterdir())


def test_training_that_diverges_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"diverged at a learning rate of 1e\+30.*Lower"):
        train_base(tiny(), open_data(tiny()), tmp_path / "a.safetensors", lr=1e30, epochs=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("settings", [{"lr": float("nan")}, {"weight_decay": float("inf")}, {"held_out": float("nan")}])
def test_a_base_is_trained_with_finite_numbers(settings: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"finite numbers; {next(iter(settings))} is"):
        train_base(tiny(), open_data(tiny()), tmp_path / "a.safetensors", **settings)


def test_a_base_needs_images_of_the_cloud(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="keeps none"):
        train_base(tiny(), ten_images(0.0), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


# Data and base belong together

DIGITS = tuple(map(str, range(10)))
NAMES = ("cat", "dog", "owl, or so", "hen")


def of_classes(*classes: str, name: str = "folder (x)") -> Dataset:
    """Twelve images of each class, four for the cloud."""
    count: int = 12 * len(classes)
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels, third = np.arange(count) % len(classes), np.arange(count) % 3
    cloud, fleet, rest = (np.flatnonzero(third == pool) for pool in range(3))
    return Dataset(name, images, labels.astype(np.int64), classes, cloud, fleet, rest, "f")


def state_of(classes: int, width: int = 4) -> dict[str, Tensor]:
    return dict(build("resnet8", width=width, num_classes=classes).state_dict())


def base(
    folder: Path,
    state: Mapping[str, Tensor],
    data: Dataset,
    *,
    trains_on: bool = False,
    settings: Mapping[str, object] | None = None,
    **said: str,
) -> BaseModel:
    """The base out of a file that says this of itself."""
    save_file(dict(state), folder / "b.safetensors", said)
    config = folder_config(model__weights=str(folder / "b.safetensors"), **(settings or {}))
    return load_base_model(config, data, trains_on=trains_on)


def folder_config(**changes: object) -> Config:
    return tiny(data__name="folder", data__root="photos", **changes)


def test_the_same_classes_in_another_order_are_put_in_the_datas(tmp_path: Path) -> None:
    data, state = of_classes(*NAMES), state_of(4)
    mixed = [NAMES[k] for k in (2, 0, 3, 1)]
    straight = base(tmp_path, state, data, classes=json.dumps(NAMES))
    rows = {name: state[name][[2, 0, 3, 1]] for name in ("fc.weight", "fc.bias")}
    permuted = base(tmp_path, state | rows, data, classes=json.dumps(mixed))
    x = to_input(torch.from_numpy(data.images))
    assert torch.equal(straight.model(x), permuted.model(x)) and straight.fingerprint == permuted.fingerprint
    images, labels = (torch.from_numpy(a) for a in (data.images, data.labels))
    assert accuracy(straight.model, images, labels) == accuracy(permuted.model, images, labels)
    assert "permuted" in " ".join(permuted.notes) and "permuted" not in " ".join(straight.notes)


@pytest.mark.parametrize(
    ("its", "data", "said"),
    [
        (
            ("00", "01", "10"),
            ("0", "1", "10"),
            "the data lacks '00', '01', and of the data's 3 it lacks '0', '1'. They ",
        ),
        (
            ("00", "01", "10"),
            ("0", "1", "10"),
            "differ in leading zeros alone. Rename the class folders, or train a base",
        ),
        (("Cat", "Dog"), ("cat", "dog"), "differ in capitals alone"),
        (("stop_sign", "yield"), ("stop sign", "yield"), "differ in blanks, hyphens or underscores alone"),
        (("cat", "dog"), ("cat", "owl"), "the data lacks 'dog', and of the data's 2 it lacks 'owl'. Train a base"),
        (
            ("cat", "dog"),
            ("cat", "dog", "owl"),
            "of its 2 classes the data lacks none, and of the data's 3 it lacks 'owl'",
        ),
    ],
)
def test_other_classes_are_refused_by_name_and_with_what_to_type(
    its: tuple[str, ...], data: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as raised:
        base(tmp_path, state_of(len(its)), of_classes(*data), classes=json.dumps(its))
    assert said in str(raised.value)
    assert f"-c model.weights={tmp_path / 'b.safetensors'}" in str(raised.value)


def test_classes_are_read_with_commas_between_as_they_were_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leading zeros"):
        base(tmp_path, state_of(2), of_classes("1", "2"), classes="01,02")
    # A name had a comma in it: these are not the rows' names.
    assert "not recorded" in " ".join(base(tmp_path, state_of(2), of_classes("1", "2"), classes="a,b,c").notes)


def test_without_names_the_number_must_fit_and_the_order_is_assumed_aloud(tmp_path: Path) -> None:
    told = f"4 are taken to be the data's, in the data's order, {', '.join(NAMES)}"
    assert told in " ".join(base(tmp_path, state_of(4), of_classes(*NAMES)).notes)
    headless = {name: tensor for name, tensor in state_of(4).items() if not name.startswith("fc.")}
    for state, why in ((state_of(5), r"fc.weight \(5, 16\) for \(4, 16\)"), (headless, "no classifier")):
        for fixed in ({"train_classifier": False}, {"strategy__name": "zero-byte"}):
            with pytest.raises(DataError, match=why):
                base(tmp_path, state, of_classes(*NAMES), settings=fixed)
        for learnt in ({}, {"adapter__method": "linear-probe"}):
            found = base(tmp_path, state, of_classes(*NAMES), settings=learnt)
            assert re.search(f"its classifier is drawn anew, to be trained: {why}", " ".join(found.notes))


@pytest.mark.parametrize("kind", ["another number", "none", "other names"])
def test_training_goes_on_with_a_classifier_drawn_anew_and_says_so(kind: str, tmp_path: Path) -> None:
    state, said = state_of(4 if kind == "other names" else 5), {}
    if kind == "none":
        state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    if kind == "other names":
        said = {"classes": json.dumps(["a", "b", "c", "d"])}
    state["conv1.weight"] = torch.full_like(state["conv1.weight"], 0.5)
    found: Any = base(tmp_path, state, of_classes(*NAMES), trains_on=True, **said)
    fresh: Any = load_base_model(folder_config(), of_classes(*NAMES))
    assert torch.equal(found.model.conv1.weight, state["conv1.weight"])
    assert torch.equal(found.model.fc.weight, fresh.model.fc.weight)
    assert "classifier is drawn anew" in " ".join(found.notes)


def shipped(model: str, data_set: str, data: Dataset, **changes: object) -> BaseModel:
    root = {"data__root": "somewhere"} if data_set == "folder" else {}
    settings = {"model__weights": "shipped", "width": None, "model__name": model, "data__name": data_set}
    return load_base_model(tiny(**settings, **root, **changes), data)


CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def test_shipped_weights_are_for_their_own_data() -> None:
    assert shipped("resnet8", "digits", of_classes(*DIGITS)).notes == ()
    assert shipped("resnet20", "cifar10", of_classes(*CIFAR10)).notes == ()
    assert shipped("resnet20", "cifar10c", of_classes(*CIFAR10)).notes == ()
    [note] = shipped("resnet20", "folder", of_classes(*CIFAR10)).notes
    assert "trained on cifar10, not on this data" in note
    for data in (of_classes(*DIGITS), of_classes(*map(str, range(100)))):
        with pytest.raises(
            DataError, match=r"Shipped weights are for the data.*`fed-lorac pretrain -c model.name=resnet20"
        ):
            shipped("resnet20", "folder", data)
    with pytest.raises(DataError, match=r"model.name=resnet14 .*--out base.safetensors`"):
        shipped("resnet14", "digits", of_classes(*DIGITS))
    with pytest.raises(
        DataError, match=r"trained with model.resnet8.width = 16, the config has model.resnet8.width = 4"
    ):
        load_base_model(tiny(model__weights="shipped"), of_classes(*DIGITS))


def test_the_command_to_type_names_all_that_makes_the_base_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny(data__name="folder", data__root="my photos", model__weights="shipped", local__lr=0.3)
    told = "pretrain -c model.resnet8.width=4 -c data.name=folder -c 'data.root=my photos' --out base.safetensors"
    assert told in remedy(config)
    (tmp_path / "base.safetensors").touch()  # which pretrain would not overwrite
    assert f'{told.replace("base.", "base-2.")}`; then set model.weights = "base-2.safetensors"' in remedy(config)
    assert "data.name=cifar10 " in remedy(tiny(data__name="cifar10c", data__root="c"))


def test_a_network_that_was_another_is_named_by_its_settings(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trained with model.name = resnet14, model.resnet14.norm = group"):
        base(tmp_path, state_of(4), of_classes(*NAMES), fed_lorac="0", model="resnet14", norm="group", width="4")
    for holds, said in (({"holds": "adapter"}, "an adapter alone"), ({"holds": "network"}, "--no-fold")):
        with pytest.raises(DataError, match=said):
            base(tmp_path, state_of(4), of_classes(*NAMES), batch_norm="folded", **holds)


def test_a_bases_normalisation_is_recorded_or_assumed_aloud(tmp_path: Path) -> None:
    state, data = state_of(4), of_classes(*NAMES)
    names = json.dumps(NAMES)
    recorded = base(tmp_path, state, data, classes=names, normalization="imagenet")
    assert (recorded.normalization.text, recorded.notes) == ("imagenet", ())
    older = base(tmp_path, state, data, classes=names, fed_lorac="0.1.0")
    assert (older.normalization.text, older.notes) == ("cifar10", ())
    foreign = base(tmp_path, state, data, classes=names)
    assert foreign.normalization.text == "cifar10" and "cifar10 assumed (model.normalization)" in foreign.notes[0]
    config = folder_config(model__weights=str(tmp_path / "b.safetensors"), model__normalization="half")
    asked = load_base_model(config, data)
    assert asked.normalization.text == "half" and "half as set" in asked.notes[0]
    assert load_base_model(folder_config(model__normalization="half"), data).normalization.text == "half"


def test_a_normalisation_that_is_not_the_bases_is_refused(tmp_path: Path) -> None:
    base(tmp_path, state_of(4), of_classes(*NAMES), classes=json.dumps(NAMES), normalization="imagenet")
    config = folder_config(model__weights=str(tmp_path / "b.safetensors"), model__normalization="half")
    with pytest.raises(DataError, match=r"says 'imagenet', model\.normalization is 'half'"):
        load_base_model(config, of_classes(*NAMES))
    with pytest.raises(DataError, match="metadata names its normalization"):
        base(tmp_path, state_of(4), of_classes(*NAMES), normalization="what")


def test_a_base_is_of_images_that_became_squares_in_one_way(tmp_path: Path) -> None:
    data, weights = of_classes(*NAMES), {"model.weights": str(tmp_path / "b.safetensors")}
    said = train_base(tiny(data__name="folder", data__root="photos"), data, tmp_path / "b.safetensors", epochs=1)
    assert said["resize"] == "squeeze" and load_base_model(folder_config(**weights), data).notes == ()
    cropped = folder_config(**weights, data__resize="crop")
    with pytest.raises(DataError, match=r'says data.resize = "squeeze", the config has "crop". Set it to "squeeze"'):
        load_base_model(cropped, data)
    [note] = load_base_model(cropped, data, trains_on=True).notes
    assert 'by data.resize = "squeeze", these do by "crop"' in note
    assert "resize" not in provenance(tiny(), data, RECIPE, 1)  # the digits are squares


def test_a_base_that_is_trained_here_says_its_classes_and_normalisation(tmp_path: Path) -> None:
    config = folder_config(model__normalization="half")
    said = train_base(config, of_classes(*NAMES), tmp_path / "a.safetensors", epochs=1)
    assert json.loads(said["classes"]) == list(NAMES) and said["normalization"] == "half"
    auto = folder_config(model__weights=str(tmp_path / "a.safetensors"))
    found = load_base_model(auto, of_classes(*NAMES))
    assert (found.normalization.text, found.notes) == ("half", ())
    data = of_classes(*NAMES)
    images, labels = (torch.from_numpy(a[data.evaluation]) for a in (data.images, data.labels))
    score = accuracy(found.model, images, labels, normalization=found.normalization)
    assert said["test_accuracy"] == f"{score:.4f}"


def test_notes_are_logged_as_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = base(tmp_path, state_of(4), of_classes(*NAMES))
    assert len(found.notes) == 2 and not caplog.records  # loading, which workers do too, says nothing
    tell_notes(found)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


@pytest.mark.parametrize("weights", ["model", "shiped", "weights.onnx", ""])
def test_what_can_be_no_path_of_weights_is_a_typing_error(weights: str) -> None:
    with pytest.raises(ConfigError, match=r"or a path, which has a slash in it"):
        tiny(model__weights=weights or '""')


def test_a_path_is_recognised_by_its_slash_or_its_ending() -> None:
    for path in ("./model", "runs/x/model", "model.PTH", "best.ckpt", "pytorch_model.bin", "checkpoint.pth.tar"):
        assert tiny(model__weights=path).model.weights == path
    with pytest.raises(RunError, match="Write the whole path"):
        load_base_model(tiny(model__weights="~nobody-of-that-name/m.pth"), of_classes(*DIGITS))
