"""The starting base: where it comes from, and whether it has seen what the cameras see."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import tiny

from fed_lorac.base import load_base, saw_fleet_images, train_base
from fed_lorac.config import Config
from fed_lorac.data.datasets import Dataset
from fed_lorac.errors import DataError
from fed_lorac.models.weights import read_checkpoint
from fed_lorac.running import fingerprint, named_tensors, running_fingerprint
from fed_lorac.site import open_data


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
    assert running_fingerprint(one, 1) != running_fingerprint(one, 2)


def test_a_base_is_trained_once_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_LORAC_CACHE", str(tmp_path))
    config = tiny(model__weights="pretrain", model__pretrain_epochs=1)
    data = open_data(config)
    first = load_base(config, data)
    (file,) = tmp_path.glob("base-*.safetensors")
    stamp = file.stat().st_mtime_ns
    again = load_base(config, data)
    assert (first.fingerprint, first.saw_fleet_images) == (again.fingerprint, "no")
    assert file.stat().st_mtime_ns == stamp
    assert load_base(replace(config, run=replace(config.run, seed=7)), data).fingerprint != first.fingerprint


def test_training_goes_on_from_a_checkpoint_and_says_so(tmp_path: Path) -> None:
    config = tiny(model__pretrain_epochs=1)
    data = open_data(config)
    train_base(config, data, tmp_path / "a.safetensors")
    further = replace(config, model=replace(config.model, weights=str(tmp_path / "a.safetensors")))
    start = load_base(further, data)
    said = train_base(further, data, tmp_path / "b.safetensors", lr=1e-9)
    assert said["continued_from"] == start.fingerprint == fingerprint(named_tensors(start.model))
    a, b = (read_checkpoint(tmp_path / f"{name}.safetensors").tensors for name in "ab")
    assert torch.allclose(a["conv1.weight"], b["conv1.weight"], atol=1e-4)
    assert not torch.equal(a["bn1.running_mean"], b["bn1.running_mean"])


def test_a_base_needs_images_of_the_cloud(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="keeps none"):
        train_base(tiny(), ten_images(0.0), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
