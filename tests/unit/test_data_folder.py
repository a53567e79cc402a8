"""Laws of image folders, of the digits, and of a CIFAR-10 copied as JPEG."""

import os
import pty
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fed_lorac.data.cifar import CIFAR10_CLASSES
from fed_lorac.data.datasets import Dataset, data_root, load
from fed_lorac.data.progress import watched
from fed_lorac.errors import ConfigError, DataError
from fed_lorac.seeds import stream


def paint(folder: Path, count: int, *, size: tuple[int, int] = (40, 24), kind: str = "jpg") -> None:
    """Files of noise, each its own."""
    folder.mkdir(parents=True)
    rng = stream(1, *folder.parts)
    for rank in range(count):
        Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)).save(folder / f"{rank:04}.{kind}")


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    for name, count in {"cat": 10, "ant": 20, "bee": 11}.items():
        paint(tmp_path / "cams" / name, count)
    return tmp_path / "cams"


@pytest.fixture
def split(tmp_path: Path) -> Path:
    for part, count in {"train": 10, "test": 4}.items():
        for name in ("cat", "ant"):
            paint(tmp_path / "cams" / part / name, count)
    return tmp_path / "cams"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def whole(cache: Path) -> list[Path]:
    """What a cache holds besides locks."""
    return [path for path in cache.iterdir() if path.suffix != ".lock"] if cache.exists() else []


def pools(data: Dataset) -> list[list[int]]:
    return [np.bincount(data.labels[pool]).tolist() for pool in (data.cloud, data.fleet, data.evaluation)]


def test_a_folder_without_test_images_is_split_50_30_20_by_rank(flat: Path, cache: Path) -> None:
    data = load("folder", flat, cache_dir=cache)
    assert data.classes == ("ant", "bee", "cat")
    assert data.images.shape == (41, 32, 32, 3) and data.images.dtype == np.uint8
    assert pools(data) == [[10, 6, 5], [6, 3, 3], [4, 2, 2]]
    assert sorted(np.concatenate([data.cloud, data.fleet, data.evaluation])) == list(range(41))
    shares = load("folder", flat, cache_dir=cache, shares=(0.2, 0.2, 0.6))
    assert pools(shares) == [[4, 2, 2], [4, 2, 2], [12, 7, 6]]
    assert shares.fingerprint == data.fingerprint


def test_a_folder_with_train_and_test_keeps_them_apart(split: Path, cache: Path) -> None:
    data = load("folder", split, cache_dir=cache)
    assert pools(data) == [[6, 6], [4, 4], [4, 4]]
    assert data.evaluation.tolist() == list(range(20, 28))
    assert pools(load("folder", split, cache_dir=cache, cloud_share=0.5)) == [[5, 5], [5, 5], [4, 4]]


def test_the_pixels_are_pillows_own_antialiased_ones_in_file_order(flat: Path, cache: Path) -> None:
    data = load("folder", flat, cache_dir=cache)
    files = [path for name in data.classes for path in sorted((flat / name).iterdir())]
    for index in (0, 19, 20, 40):
        expected = Image.open(files[index]).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(data.images[index], np.asarray(expected))


def test_shrinking_does_not_alias(tmp_path: Path, cache: Path) -> None:
    """A one-pixel chequerboard has no detail that 32 pixels can show: it must turn grey."""
    for name in ("a", "b"):
        paint(tmp_path / "d" / name, 5, kind="png")
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "d" / "a" / "0000.png")
    picture = load("folder", tmp_path / "d", cache_dir=cache).images[0].astype(int)
    assert abs(picture - 127).max() <= 2


def _rgba() -> Image.Image:
    return Image.new("RGBA", (9, 9), (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("image", "suffix", "colour"),
    [
        (Image.new("L", (9, 9), 77), "png", (77, 77, 77)),
        (Image.new("1", (9, 9), 1), "png", (255, 255, 255)),
        (Image.new("CMYK", (9, 9), (0, 0, 0, 0)), "jpg", (255, 255, 255)),
        (_rgba(), "png", (255, 255, 255)),
        (_rgba(), "gif", (255, 255, 255)),
        (Image.new("RGB", (9, 9), (10, 20, 30)), "bmp", (10, 20, 30)),
    ],
)
def test_every_colour_mode_becomes_rgb_and_what_is_transparent_white(
    flat: Path, cache: Path, image: Image.Image, suffix: str, colour: tuple[int, int, int]
) -> None:
    image.save(flat / "ant" / f"0000.{suffix}")
    data = load("folder", flat, cache_dir=cache)
    index = sorted(path.name for path in (flat / "ant").iterdir()).index(f"0000.{suffix}")
    assert abs(data.images[index].astype(int) - np.array(colour)).max() <= 2


def test_a_camera_held_upright_is_shown_upright(flat: Path, cache: Path) -> None:
    picture = Image.new("RGB", (40, 40))
    picture.paste((255, 255, 255), (0, 0, 40, 20))  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # "turn by 180 degrees to view"
    picture.save(flat / "ant" / "0000.jpg", exif=exif, quality=95)
    shown = load("folder", flat, cache_dir=cache).images[0]
    assert shown[:12].max() < 10 and shown[20:].min() > 245


def test_a_second_start_opens_no_image_file(flat: Path, cache: Path) -> None:
    first = load("folder", flat, cache_dir=cache)
    for path in flat.rglob("*.jpg"):  # the same size and time, and nothing in them that could be decoded
        stat = path.stat()
        path.write_bytes(b"\0" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = load("folder", flat, cache_dir=cache)
    np.testing.assert_array_equal(first.images, second.images)
    assert first.fingerprint == second.fingerprint
    assert isinstance(second.images, np.memmap) and not second.images.flags.writeable


def _touch(flat: Path) -> None:
    os.utime(flat / "ant" / "0000.jpg", ns=(0, 0))


def _add(flat: Path) -> None:
    shutil.copy2(flat / "ant" / "0000.jpg", flat / "ant" / "9999.jpg")


def _remove(flat: Path) -> None:
    (flat / "ant" / "0003.jpg").unlink()


def _rename(flat: Path) -> None:
    (flat / "ant").rename(flat / "wasp")


@pytest.mark.parametrize("change", [_touch, _add, _remove, _rename])
def test_a_changed_folder_is_decoded_again(flat: Path, cache: Path, change: Callable[[Path], None]) -> None:
    load("folder", flat, cache_dir=cache)
    change(flat)
    load("folder", flat, cache_dir=cache)
    assert len(whole(cache)) == 2


def test_the_fingerprint_follows_the_pixels_and_not_the_place(flat: Path, cache: Path, tmp_path: Path) -> None:
    first = load("folder", flat, cache_dir=cache)
    shutil.copytree(flat, tmp_path / "moved")
    assert load("folder", tmp_path / "moved", cache_dir=cache).fingerprint == first.fingerprint
    (tmp_path / "moved" / "ant").rename(tmp_path / "moved" / "aunt")
    assert load("folder", tmp_path / "moved", cache_dir=cache).fingerprint != first.fingerprint
    paint(tmp_path / "other" / "x", 1)
    shutil.copy(tmp_path / "other" / "x" / "0000.jpg", flat / "ant" / "0000.jpg")
    assert load("folder", flat, cache_dir=cache).fingerprint != first.fingerprint


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, -1])
def test_a_truncated_image_is_named_and_no_cache_is_left(flat: Path, cache: Path, kept: float) -> None:
    victim = flat / "bee" / "0007.jpg"
    whole_file = victim.read_bytes()
    victim.write_bytes(whole_file[: int(kept * len(whole_file)) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match=r"bee/0007\.jpg .*remove it"):
        load("folder", flat, cache_dir=cache)
    assert whole(cache) == []
    victim.write_bytes(whole_file)
    assert len(load("folder", flat, cache_dir=cache).images) == 41


def _text(root: Path) -> Path:
    (path := root / "train" / "ant" / "notes.txt").write_text("not an image")
    return path


def _postscript(root: Path) -> Path:
    (path := root / "train" / "ant" / "x.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    return path


def _dangling(root: Path) -> Path:
    (path := root / "train" / "ant" / "x.jpg").symlink_to(root / "nowhere.jpg")
    return path


def _deep(root: Path) -> Path:
    (path := root / "train" / "ant" / "monday").mkdir()
    return path


def _sixteen_bit(root: Path) -> Path:
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(path := root / "train" / "ant" / "x.png")
    return path


def _no_class_in_test(root: Path) -> Path:
    shutil.rmtree(path := root / "test" / "ant")
    return path


def _no_class_in_train(root: Path) -> Path:
    shutil.rmtree(path := root / "train" / "ant")
    (root / "train" / "bee").mkdir()
    return path


def _empty_class(root: Path) -> Path:
    (root / "train" / "bee").mkdir()
    (path := root / "test" / "bee").mkdir()
    (path / ".hidden").touch()
    return root / "train" / "bee"


def _no_test(root: Path) -> Path:
    shutil.rmtree(root / "test")
    return root


def _one_class(root: Path) -> Path:
    for part in ("train", "test"):
        shutil.rmtree(root / part / "cat")
    return root / "train"


def _gone(root: Path) -> Path:
    shutil.rmtree(root)
    return root


def _a_file(root: Path) -> Path:
    shutil.rmtree(root)
    root.touch()
    return root


def _loop(root: Path) -> Path:
    (path := root / "train" / "loop").symlink_to(path)
    return path


def _twice(root: Path) -> Path:
    for part in ("train", "test"):
        (root / part / "insect").symlink_to(root / part / "ant")
    return root / "train" / "ant"


FAULTS = [_loop, _twice, _text, _postscript, _dangling, _deep, _sixteen_bit, _no_class_in_test, _no_class_in_train]
FAULTS += [_empty_class, _no_test, _one_class, _gone, _a_file]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_folder_is_refused_by_name_and_leaves_no_cache(
    split: Path, cache: Path, fault: Callable[[Path], Path]
) -> None:
    culprit = fault(split)
    with pytest.raises(DataError) as caught:
        load("folder", split, cache_dir=cache)
    assert str(culprit) in str(caught.value)
    assert whole(cache) == []


def test_a_class_too_small_for_the_split_is_refused(flat: Path, cache: Path) -> None:
    for path in list((flat / "bee").iterdir())[2:]:
        path.unlink()
    with pytest.raises(DataError, match="'bee'"):
        load("folder", flat, cache_dir=cache)


def test_clean_images_are_copies_and_indices_are_checked(flat: Path, cache: Path) -> None:
    data = load("folder", flat, cache_dir=cache)
    picked = data.clean(np.array([5, 2]))
    np.testing.assert_array_equal(picked, data.images[[5, 2]])
    picked[:] = 0  # the cache is untouched, and nobody else's either
    assert data.clean(np.array([5])).any()
    assert data.clean(np.array([], np.int64)).shape == (0, 32, 32, 3)
    for wrong in (-1, 41):
        with pytest.raises(DataError, match=r"0\.\.40"):
            data.clean(np.array([0, wrong]))


def test_weather_is_the_corruption_of_the_clean_images() -> None:
    corrupt = pytest.importorskip("fed_lorac.data.corruptions").corrupt
    data = load("digits")
    indices = data.fleet[:6]
    seen = data.weather(indices, "gaussian_noise", 3, stream(7, "sky"))
    expected = corrupt(data.clean(indices), "gaussian_noise", 3, stream(7, "sky"))
    np.testing.assert_array_equal(seen, expected)
    assert (seen != data.clean(indices)).any()


def test_digits_need_no_files_and_are_split_50_30_20() -> None:
    from sklearn.datasets import load_digits

    data, scans = load("digits"), load_digits()
    assert data.name == "digits" and data.images.shape == (1797, 32, 32, 3)
    np.testing.assert_array_equal(data.labels, scans.target)
    assert data.classes == tuple("0123456789")
    assert np.ptp(data.images, axis=-1).max() == 0
    counts = np.bincount(scans.target)
    for pool, share in zip((data.cloud, data.fleet, data.evaluation), (0.5, 0.3, 0.2), strict=True):
        assert (abs(np.bincount(data.labels[pool]) - share * counts) <= 1).all()
    shrunk = data.images[:, :, :, 0].reshape(-1, 8, 4, 8, 4).mean((2, 4))  # upscaling kept the pictures
    likeness = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(shrunk, scans.images, strict=True)]
    assert min(likeness) > 0.9


def test_the_image_size_is_a_setting_in_eights() -> None:
    assert load("digits", image_size=16).images.shape[1:] == (16, 16, 3)
    for wrong in (0, -8, 20):
        with pytest.raises(ConfigError, match="multiple of 8"):
            load("digits", image_size=wrong)


def test_an_unknown_data_set_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'cifar100'"):
        load("cifar-100")


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_between_0_and_1(share: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        load("digits", cloud_share=share)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        load("digits", shares=(share, 0.5, 0.5 - share))


def test_a_relative_root_starts_at_the_environments_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FED_LORAC_DATA", str(tmp_path / "images"))
    assert data_root("") == tmp_path / "images"
    assert data_root("cams") == tmp_path / "images" / "cams"
    assert data_root("/srv/cams") == Path("/srv/cams")
    monkeypatch.delenv("FED_LORAC_DATA")
    assert data_root("") == tmp_path
    assert data_root("cams") == tmp_path / "cams"


@pytest.mark.parametrize("below", ["", "cifar10"])
def test_a_copy_of_cifar10_is_recorded_as_one_and_a_part_as_a_part(tmp_path: Path, cache: Path, below: str) -> None:
    for part, count in {"train": 5, "test": 2}.items():
        for name in CIFAR10_CLASSES:
            paint(tmp_path / "d" / below / part / name, count)
    data = load("cifar10", tmp_path / "d", cache_dir=cache)
    assert data.name == "cifar10 (a copy of 50 + 20 of its 50000 + 10000 images)"
    assert pools(data) == [[3] * 10, [2] * 10, [2] * 10]
    shutil.rmtree(tmp_path / "d" / below / "train" / "frog")
    shutil.rmtree(tmp_path / "d" / below / "test" / "frog")
    with pytest.raises(DataError, match="frog"):
        load("cifar10", tmp_path / "d", cache_dir=cache)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "cifar10c"])
def test_a_data_set_that_is_not_there_says_how_to_get_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"download|Unpack"):
        load(name, tmp_path, cache_dir=tmp_path / "cache")


def test_a_bar_is_shown_on_a_terminal_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(watched("abc", total=3, title="decoding cams")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert list(watched("abc", total=3, title="decoding cams")) == ["a", "b", "c"]
        terminal.flush()
        assert b"decoding cams" in os.read(ours, 65536)
    os.close(ours)


@pytest.mark.slow
def test_the_60000_real_images_are_cifar10_shared_by_rank(real_data: Path) -> None:
    data = load("cifar10", real_data)
    assert data.name == "cifar10" and data.classes == CIFAR10_CLASSES
    assert data.images.shape == (60_000, 32, 32, 3)
    assert pools(data) == [[3000] * 10, [2000] * 10, [1000] * 10]
    for pool, part, first in ((data.cloud, "train", 0), (data.fleet, "train", 3000), (data.evaluation, "test", 0)):
        for label in (0, 9):
            index = pool[data.labels[pool] == label][0]
            path = sorted((real_data / "cifar10" / part / data.classes[label]).iterdir())[first]
            np.testing.assert_array_equal(data.images[index], np.asarray(Image.open(path).convert("RGB")))
    assert load("cifar10", real_data).fingerprint == data.fingerprint
