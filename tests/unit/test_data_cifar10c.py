"""Laws of the official CIFAR-10-C files, on the authors' sample and on small ones of the same layout."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fed_lorac.data.cifar10c import OfficialWeather
from fed_lorac.data.dataset import Dataset
from fed_lorac.data.datasets import load
from fed_lorac.errors import ConfigError, DataError
from fed_lorac.seeds import stream

BLOCK = 40
LABELS = stream(5, "labels").permutation(np.arange(BLOCK) % 10)
CLEAN = stream(5, "clean").integers(0, 256, (BLOCK, 32, 32, 3), np.uint8)


def weathered(name: str) -> np.ndarray:
    return stream(5, name).integers(0, 256, (5 * BLOCK, 32, 32, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (path := tmp_path / "CIFAR-10-C").mkdir()
    np.save(path / "labels.npy", np.tile(LABELS, 5).astype(np.uint8))
    np.save(path / "_clean.npy", CLEAN)
    for name in ("fog", "snow"):
        np.save(path / f"{name}.npy", weathered(name))
    return path


def opened(folder: Path, clean: Dataset | None = None) -> OfficialWeather:
    data = load("cifar10c", folder.parent, cache_dir=folder.parent / "cache", clean=clean)
    assert isinstance(data, OfficialWeather)
    return data


def test_weather_is_looked_up_by_severity_and_position(folder: Path) -> None:
    data = opened(folder)
    assert data.corruptions == ("fog", "snow")
    indices = np.array([7, 0, BLOCK - 1])
    for name in data.corruptions:
        for severity in range(1, 6):
            expected = weathered(name)[[(severity - 1) * BLOCK + index for index in indices]]
            rng = stream(1, "unused")
            np.testing.assert_array_equal(data.weather(indices, name, severity, rng), expected)
            assert rng.random() == stream(1, "unused").random()
    np.testing.assert_array_equal(data.clean(indices), CLEAN[indices])


def test_nothing_but_maps_is_held_and_nothing_can_be_written(folder: Path) -> None:
    data = opened(folder)
    for array in (data.images, *data.blocks.values()):
        assert isinstance(array, np.memmap) and not array.flags.writeable
    data.weather(np.arange(3), "fog", 1)[:] = 0
    np.testing.assert_array_equal(data.blocks["fog"], weathered("fog"))


def test_pools_are_disjoint_by_picture_and_the_cloud_has_none(folder: Path) -> None:
    data = opened(folder)
    assert len(data.cloud) == 0
    assert sorted([*data.fleet, *data.evaluation]) == list(range(BLOCK))
    for pool in (data.fleet, data.evaluation):
        assert np.bincount(data.labels[pool]).tolist() == [2] * 10
    quarter = load("cifar10c", folder, shares=(0, 0.25, 0.75), cache_dir=folder.parent / "cache")
    assert (len(quarter.fleet), len(quarter.evaluation)) == (10, 30)
    with pytest.raises(ConfigError, match="cloud's share must be 0"):
        load("cifar10c", folder, shares=(0.5, 0.25, 0.25))


@pytest.mark.parametrize("wrong", [-1, BLOCK])
def test_an_index_outside_the_block_never_reaches_another_severity(folder: Path, wrong: int) -> None:
    data = opened(folder)
    with pytest.raises(DataError, match=r"0\.\.39"):
        data.weather(np.array([wrong]), "fog", 2)
    with pytest.raises(DataError, match=r"0\.\.39"):
        data.clean(np.array([wrong]))


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_a_severity_is_1_to_5(folder: Path, severity: int) -> None:
    with pytest.raises(ConfigError, match="1 to 5"):
        opened(folder).weather(np.arange(2), "fog", severity)


def test_a_corruption_without_a_file_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"frost\.npy is missing.*fog, snow"):
        opened(folder).weather(np.arange(2), "frost", 1)


def test_what_is_missing_is_named_at_once_before_anything_is_looked_up(folder: Path) -> None:
    data = opened(folder)
    data.check_weathers(["fog", "snow"], clear=True)
    with pytest.raises(DataError, match=r"frost\.npy, .*glass_blur\.npy are missing. There are fog, snow"):
        data.check_weathers(["frost", "fog", "glass_blur", "frost"])
    (folder / "_clean.npy").unlink()
    opened(folder).check_weathers(["fog"])
    with pytest.raises(DataError, match="no clean images"):
        opened(folder).check_weathers(["fog"], clear=True)
    (folder / "_clean.npy").symlink_to(folder / "nowhere.npy")
    with pytest.raises(DataError, match=r"_clean\.npy must be a whole"):
        opened(folder)


def test_weather_that_is_made_here_has_known_names_only() -> None:
    load("digits").check_weathers(["fog", "frost"], clear=True)
    with pytest.raises(ConfigError, match="'mist'"):
        load("digits").check_weathers(["fog", "mist"])


def _save(name: str, array: np.ndarray) -> Callable[[Path], str]:
    def fault(folder: Path) -> str:
        np.save(folder / name, array, allow_pickle=True)
        return name

    return fault


def _truncate(folder: Path) -> str:
    path = folder / "fog.npy"
    path.write_bytes(path.read_bytes()[:-1000])
    return path.name


def _lengthen(folder: Path) -> str:
    path = folder / "snow.npy"
    path.write_bytes(path.read_bytes() + b"tail")
    return path.name


def _unlabel(folder: Path) -> str:
    (folder / "labels.npy").unlink()
    return "labels.npy"


def _strip(folder: Path) -> str:
    for path in (folder / "fog.npy", folder / "snow.npy"):
        path.unlink()
    return "CIFAR-10-C has none"


ONE_OFF = np.tile(LABELS, 5)
ONE_OFF[BLOCK + 3] = (ONE_OFF[BLOCK + 3] + 1) % 10
FAULTS = [
    _truncate,
    _lengthen,
    _unlabel,
    _strip,
    _save("labels.npy", ONE_OFF),
    _save("labels.npy", np.tile(LABELS, 5)[:-1]),
    _save("labels.npy", np.tile(LABELS, 5).astype(np.float32)),
    _save("labels.npy", np.tile(LABELS, 5).astype(object)),
    _save("labels.npy", np.tile(LABELS, 5)[:, None]),
    _save("labels.npy", np.tile(LABELS + 1, 5)),
    _save("labels.npy", np.zeros(0, np.int64)),
    _save("fog.npy", weathered("fog")[:-1]),
    _save("fog.npy", weathered("fog").astype(np.float32)),
    _save("fog.npy", weathered("fog").transpose(0, 3, 1, 2)),
    _save("_clean.npy", CLEAN[:-1]),
    _save("_clean.npy", CLEAN.astype(np.int8)),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_do_not_fit_together_are_refused_by_name(folder: Path, fault: Callable[[Path], str]) -> None:
    culprit = fault(folder)
    with pytest.raises(DataError) as caught:
        opened(folder)
    assert culprit in str(caught.value)


def cifar10(labels: np.ndarray, images: np.ndarray, first: int = 0) -> Dataset:
    """A CIFAR-10 of these test images, and `first` training images before them."""
    images = np.concatenate([np.zeros((first, 32, 32, 3), np.uint8), images])
    none = np.empty(0, np.int64)
    pool = np.arange(first, len(images))
    return Dataset("cifar10", images, np.concatenate([np.zeros(first, np.int64), labels]), (), none, none, pool, "")


def test_without_clean_images_they_can_be_given_and_must_match(folder: Path) -> None:
    (folder / "_clean.npy").unlink()
    blind = opened(folder)
    assert blind.images.shape == (0, 32, 32, 3)
    assert blind.weather(np.arange(2), "fog", 1).shape == (2, 32, 32, 3)
    with pytest.raises(DataError, match=r"cifar-10-batches-py"):
        blind.clean(np.arange(2))
    sighted = opened(folder, cifar10(LABELS, CLEAN, first=9))
    np.testing.assert_array_equal(sighted.clean(np.array([3, 1])), CLEAN[[3, 1]])
    for labels in (np.roll(LABELS, 1), LABELS[:-1]):
        with pytest.raises(DataError, match="in the same order"):
            opened(folder, cifar10(labels, CLEAN[: len(labels)]))


def test_the_fingerprint_is_that_of_the_content_and_is_taken_once(folder: Path) -> None:
    first = opened(folder).fingerprint
    path = folder / "fog.npy"
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert opened(folder).fingerprint == first  # not read again
    os.utime(path, ns=(0, 0))
    changed = opened(folder).fingerprint
    assert changed != first
    content[-1] ^= 1
    path.write_bytes(content)
    assert opened(folder).fingerprint == first
    np.save(folder / "_clean.npy", CLEAN[::-1])
    assert opened(folder).fingerprint != first


@pytest.mark.slow
def test_the_authors_sample_is_read_as_its_authors_say(real_data: Path) -> None:
    """Number k of the sample is class k % 10, and its clean picture is one of that class's test images after JPEG."""
    data = load("cifar10c", real_data)
    assert isinstance(data, OfficialWeather) and len(data.corruptions) == 19
    np.testing.assert_array_equal(data.labels, np.arange(100) % 10)
    ten = load("cifar10", real_data)
    for number, clean in enumerate(data.clean(np.arange(100)).astype(np.int16)):
        of_class = ten.clean(ten.evaluation[ten.labels[ten.evaluation] == number % 10])
        away = np.sort(np.abs(of_class - clean).mean(axis=(1, 2, 3)))
        assert away[0] < 15 and 2 * away[0] < away[1], (number, away[:2])  # grey levels: one near, no other
    assert (len(data.fleet), len(data.evaluation)) == (50, 50)
    far = [abs(data.weather(np.arange(100), "gaussian_noise", s) - data.images.astype(float)).mean() for s in (1, 3, 5)]
    assert 5 < far[0] < far[1] < far[2]
