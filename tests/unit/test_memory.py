"""What a process keeps of images, and what it gives back."""

import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fed_lorac.data.store import map_array
from fed_lorac.fleet.camera_data import as_tensor
from fed_lorac.runtime.allocator import give_back
from fed_lorac.seeds import stream


@pytest.fixture
def images(tmp_path: Path) -> np.memmap:
    np.save(tmp_path / "images.npy", stream(0, "images").integers(0, 256, (20, 8, 8, 3), np.uint8))
    return map_array(tmp_path / "images.npy")


def file_behind(tensor: torch.Tensor) -> str:
    """The file that a tensor's memory is mapped from; "" where it is the process's own."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        words = line.split()
        first, last = (int(word, 16) for word in words[0].split("-"))
        if first <= tensor.data_ptr() < last:
            return words[5] if len(words) > 5 and words[5].startswith("/") else ""
    return ""


def test_a_whole_file_of_images_is_mapped_and_what_is_written_stays_in_this_process(images: np.memmap) -> None:
    mapped = as_tensor(images)
    assert np.array_equal(mapped, images)
    assert file_behind(mapped) == str(images.filename)
    before = images.copy()
    mapped[0] = 7
    assert np.array_equal(np.load(str(images.filename), allow_pickle=False), before)


@pytest.mark.parametrize(
    "part", [np.s_[3:7], np.s_[:19], np.s_[1:], np.s_[::-1], np.s_[:, ::-1], np.s_[[4, 2]], np.s_[:0]], ids=str
)
def test_a_part_of_it_or_another_order_is_copied(images: np.memmap, part: Any) -> None:
    assert np.array_equal(as_tensor(images[part]), images[part])
    assert not file_behind(as_tensor(images[part]))
    assert np.array_equal(as_tensor(np.asarray(images[part])), images[part])


def test_mapped_images_hold_no_file_open(images: np.memmap) -> None:
    gc.collect()  # what other tests left behind
    open_before = open_files()
    kept = [as_tensor(map_array(Path(str(images.filename)))) for _ in range(20)]
    gc.collect()
    assert open_files() <= open_before and len(kept) == 20


def test_images_whose_file_is_gone_are_copied(images: np.memmap) -> None:
    Path(str(images.filename)).unlink()
    assert np.array_equal(as_tensor(images), images)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not hasattr(__import__("ctypes").CDLL(None), "malloc_trim"), reason="glibc alone keeps it")
def test_freed_memory_goes_back_to_the_system() -> None:
    give_back()
    small = [torch.ones(8_000) for _ in range(3_000)]  # 92 MiB, each too small to be mapped by itself
    last = torch.ones(8_000)  # the heap's end stays in use
    full = resident_mib()
    del small
    gc.collect()
    give_back()
    assert resident_mib() < full - 60
    assert float(last.sum()) == 8_000
