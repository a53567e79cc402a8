"""Laws of the official CIFAR files, on small ones written byte for byte as Python 2 wrote the real ones."""

import hashlib
import os
import pickle
import struct
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fed_lorac.data import cifar
from fed_lorac.data.cifar import CIFAR10_CLASSES, Official
from fed_lorac.data.datasets import Dataset, Request, _official, load
from fed_lorac.errors import DataError
from fed_lorac.seeds import stream

KEYS = (b"filenames", b"labels", b"data")
SIZES = {"data_batch_1": 30, "data_batch_2": 20, "test_batch": 20}


def python2(value: Any) -> bytes:
    """A value as Python 2's pickle wrote it, protocol 2, without memo."""
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(python2, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(key) + python2(item) for key, item in value.items()) + b"u"
    return array2(value)


def array2(array: np.ndarray) -> bytes:
    """A uint8 array likewise: a blank one by name of its maker, and the state to put into it."""
    blank = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + python2((0,)) + python2(b"b") + b"tR"
    kind = b"cnumpy\ndtype\n" + python2((b"u1", 0, 1)) + b"R(" + python2(3) + python2(b"|") + b"NNN"
    kind += python2(-1) + python2(-1) + python2(0) + b"tb"
    return blank + b"(" + python2(1) + python2(array.shape) + kind + b"I00\n" + python2(array.tobytes()) + b"tb"


def write(path: Path, content: bytes) -> str:
    """Write a file; returns its md5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def batch(name: str) -> dict[bytes, Any]:
    count = SIZES[name]
    pixels = stream(3, name).integers(0, 256, (count, 3072), np.uint8)
    labels = stream(4, name).permutation(np.arange(count) % 10).tolist()
    names = [f"{name}_{place:06}.png".encode() for place in stream(5, name).permutation(count)]
    return {b"batch_label": name.encode(), b"labels": labels, b"data": pixels, b"filenames": names}


def ordered(*names: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and labels of these batches together, by class and within each by the files' names."""
    said = [row for name in names for row in zip(*(batch(name)[key] for key in KEYS), strict=True)]
    said.sort(key=lambda row: (row[1], row[0]))
    return np.stack([row[2] for row in said]), np.array([row[1] for row in said])


def pickled(content: Any) -> bytes:
    return b"\x80\x02" + python2(content) + b"."


@pytest.fixture
def small(tmp_path: Path) -> Official:
    """Official files below `tmp_path / "cifar-10-batches-py"`, and their description."""
    folder = tmp_path / "cifar-10-batches-py"
    md5 = {name: write(folder / name, pickled(batch(name))) for name in SIZES}
    meta = {b"label_names": [name.encode() for name in CIFAR10_CLASSES], b"num_vis": 3072}
    return replace(
        cifar.official("cifar10"),
        train=tuple((name, md5[name]) for name in ("data_batch_1", "data_batch_2")),
        test=(("test_batch", md5["test_batch"]),),
        meta=("batches.meta", write(folder / "batches.meta", pickled(meta))),
    )


def opened(version: Official, root: Path, *, download: bool = False, image_size: int = 32) -> Dataset:
    return _official(version, Request(root, download, image_size, 0.6, None, root / "cache", None))


def altered(version: Official, root: Path, name: str, content: bytes) -> Official:
    """The version whose published md5 of one file is that of this content."""
    md5 = write(root / version.folder / name, content)

    def fixed(files: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        return tuple((known, md5 if known == name else published) for known, published in files)

    return replace(version, train=fixed(version.train), test=fixed(version.test), meta=fixed((version.meta,))[0])


def test_images_come_by_class_and_by_their_authors_names_training_first(small: Official, tmp_path: Path) -> None:
    data = opened(small, tmp_path)
    parts = ordered("data_batch_1", "data_batch_2"), ordered("test_batch")
    rows, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
    assert data.name == "cifar10" and data.classes == CIFAR10_CLASSES
    np.testing.assert_array_equal(data.labels, labels)
    for channel in range(3):  # a row is the red plane, then the green, then the blue, each row by row
        plane = rows[:, channel * 1024 : (channel + 1) * 1024].reshape(-1, 32, 32)
        np.testing.assert_array_equal(data.images[..., channel], plane)
    assert (len(data.cloud), len(data.fleet), data.evaluation.tolist()) == (30, 20, list(range(50, 70)))
    assert np.bincount(labels[data.cloud]).tolist() == [3] * 10


def test_torchvision_reads_the_same_pixels(small: Official, tmp_path: Path) -> None:
    """The other route: torchvision's own class, told of these files' checksums."""
    from torchvision import datasets

    class Small(datasets.CIFAR10):  # type: ignore[misc]
        train_list = [list(file) for file in small.train]  # noqa: RUF012
        test_list = [list(file) for file in small.test]  # noqa: RUF012
        meta = {"filename": small.meta[0], "key": "label_names", "md5": small.meta[1]}  # noqa: RUF012

    data, train, test = opened(small, tmp_path), Small(tmp_path, train=True), Small(tmp_path, train=False)

    def known(images: np.ndarray, labels: Sequence[int]) -> list[tuple[int, bytes]]:
        return sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))

    start = len(train.data)
    assert known(data.images[:start], data.labels[:start].tolist()) == known(train.data, train.targets)
    assert known(data.images[start:], data.labels[start:].tolist()) == known(test.data, test.targets)
    assert data.classes == tuple(train.classes)


def test_the_published_descriptions_are_complete() -> None:
    ten, hundred = cifar.official("cifar10"), cifar.official("cifar100")
    assert [len(version.files) for version in (ten, hundred)] == [7, 3]
    assert (ten.label_key, ten.classes_key) == ("labels", "label_names")
    assert (hundred.label_key, hundred.classes_key) == ("fine_labels", "fine_label_names")
    assert all(len(md5) == 32 for version in (ten, hundred) for _, md5 in version.files)


def test_a_second_start_opens_no_official_file(small: Official, tmp_path: Path) -> None:
    first = opened(small, tmp_path)
    for path in (tmp_path / small.folder).iterdir():
        stat = path.stat()
        path.write_bytes(b"\0" * stat.st_size)  # the same size and time, and nothing that could be read
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert opened(small, tmp_path).fingerprint == first.fingerprint


def test_another_image_size_is_resized(small: Official, tmp_path: Path) -> None:
    assert opened(small, tmp_path, image_size=64).images.shape == (70, 64, 64, 3)


@pytest.mark.parametrize("name", [*SIZES, "batches.meta"])
def test_a_file_with_another_checksum_is_refused_unread(small: Official, tmp_path: Path, name: str) -> None:
    path = tmp_path / small.folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{name} must have the published md5 .*download it again"):
        opened(small, tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=rf"{name} is missing"):
        opened(small, tmp_path)
    assert not list(tmp_path.glob("cache/*/*"))


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_a_pickle_that_calls_anything_is_refused_even_with_the_right_checksum(small: Official, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    evil = altered(small, tmp_path, "test_batch", pickle.dumps({"data": Evil(trace)}))
    with pytest.raises(DataError, match="test_batch must hold arrays and labels only"):
        opened(evil, tmp_path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        pickled([1, 2]),
        pickled({b"labels": [1, 2]}),
        pickled({b"labels": [1, 2], b"data": [3, 4]}),
        pickled({b"labels": [1], b"data": np.zeros((2, 3072), np.uint8)}),
        pickled({b"labels": [1, 2], b"data": np.zeros((2, 3071), np.uint8)}),
        pickled(batch("test_batch"))[:-100],
        b"",
        b"garbage",
    ],
)
def test_content_of_another_shape_is_refused(small: Official, tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="test_batch must hold"):
        opened(altered(small, tmp_path, "test_batch", content), tmp_path)


def test_a_missing_class_is_refused(small: Official, tmp_path: Path) -> None:
    names = [name.encode() for name in (*CIFAR10_CLASSES, "zebra")]
    with pytest.raises(DataError, match="each of its 11 classes"):
        opened(altered(small, tmp_path, "batches.meta", pickled({b"label_names": names})), tmp_path)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(small: Official, tmp_path: Path) -> Iterator[Official]:
    """The small version, its archive served over HTTP from this machine as the real one is from Toronto."""
    (experiment := tmp_path / "experiment").mkdir()
    with tarfile.open(experiment / small.archive, "w:gz") as tar:
        tar.add(tmp_path / small.folder, small.folder)
    md5 = hashlib.md5((experiment / small.archive).read_bytes(), usedforsecurity=False).hexdigest()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(experiment))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield replace(small, url=f"http://127.0.0.1:{server.server_port}/{small.archive}", archive_md5=md5)
        server.shutdown()


def test_a_download_happens_only_when_asked_for_and_only_once(served: Official, tmp_path: Path) -> None:
    root = tmp_path / "elsewhere"
    with pytest.raises(DataError, match=r"set data\.cifar10\.download = true"):
        opened(served, root)
    data = opened(served, root, download=True)
    assert data.fingerprint == opened(served, tmp_path).fingerprint
    assert opened(replace(served, url="http://127.0.0.1:1/gone"), root, download=True).fingerprint == data.fingerprint


@pytest.mark.parametrize("fault", [{"archive_md5": "0" * 32}, {"url": "http://127.0.0.1:1/gone"}])
def test_a_download_that_fails_or_is_not_the_published_one_is_refused(
    served: Official, tmp_path: Path, fault: dict[str, Any]
) -> None:
    root = tmp_path / "elsewhere"
    with pytest.raises(DataError, match=r"must arrive whole .*other means"):
        opened(replace(served, **fault), root, download=True)
    assert not (root / served.folder).exists()


def test_processes_that_download_together_fetch_once_and_all_get_it(served: Official, tmp_path: Path) -> None:
    root = tmp_path / "elsewhere"
    with ThreadPoolExecutor(4) as pool:
        prints = {data.fingerprint for data in pool.map(lambda _: opened(served, root, download=True), range(4))}
    assert len(prints) == 1
    assert {path.name for path in (root / served.folder).iterdir()} == {name for name, _ in served.files}
    assert not [path for path in root.iterdir() if path.name.startswith(".") and path.is_dir()]


def as_folders(root: Path, ending: str) -> None:
    """The batches as a lossless image folder below root, each image by its authors' name."""
    for part, names in {"train": ("data_batch_1", "data_batch_2"), "test": ("test_batch",)}.items():
        for name in names:
            for file, label, row in zip(*(batch(name)[key] for key in KEYS), strict=True):
                path = root / part / CIFAR10_CLASSES[label] / f"{file.decode().removesuffix('.png')}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(row.reshape(3, 32, 32).transpose(1, 2, 0)).save(path, lossless=True)


@pytest.mark.parametrize("ending", ["png", "webp", "bmp"])
@pytest.mark.parametrize("size", [32, 16])
def test_a_lossless_copy_is_the_data_set_of_the_published_files(
    small: Official, tmp_path: Path, ending: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images, split and fingerprint: a base that one trained knows none of the other's fleet."""
    as_folders(tmp_path / "copy" / "cifar10", ending)
    files = opened(small, tmp_path, image_size=size)
    copy = load("cifar10", tmp_path / "copy", image_size=size, cache_dir=tmp_path / "cache")
    assert copy.fingerprint == files.fingerprint
    np.testing.assert_array_equal(copy.cloud, files.cloud)
    assert copy.name == "cifar10 (a copy of 50 + 20 of its 50000 + 10000 images)"
    pixels = load("cifar10", tmp_path / "copy", cache_dir=tmp_path / "cache").images
    monkeypatch.setattr(cifar, "CIFAR10_PIXELS", hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest())
    again = load("cifar10", tmp_path / "copy", image_size=size, cache_dir=tmp_path / "anew")
    assert again.name == "cifar10"


def test_names_that_are_not_one_an_image_are_refused(small: Official, tmp_path: Path) -> None:
    content = {**batch("data_batch_1"), b"filenames": [b"x.png"]}
    version = altered(small, tmp_path, "data_batch_1", pickled(content))
    with pytest.raises(DataError, match="must hold the name of each of its 30 images; it holds 1"):
        opened(version, tmp_path)


def test_official_files_are_preferred_to_a_copy(small: Official, tmp_path: Path) -> None:
    """Beside `cifar-10-batches-py/`, whole or not, the folder is not looked at: the user meant the originals."""
    (tmp_path / "cifar10" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="cifar-10-batches-py/data_batch_3 is missing"):
        load("cifar10", tmp_path, cache_dir=tmp_path / "cache")
