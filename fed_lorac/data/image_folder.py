"""Folders of images, one sub-folder a class. Knows names, sizes and times of files; never opens one.

Two layouts: `root/<class>/<file>`, and `root/train/<class>/<file>` with `root/test/<class>/<file>` beside it.
Classes are numbered in the order of their names, and a class's images are ordered by file name.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fed_lorac.errors import DataError

__all__ = ["Listing", "has_splits", "list_images"]


@dataclass(frozen=True)
class Listing:
    """The images below a root: training files first, then the test files, each by class and by name."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]  # whole paths, as text: sixty thousand Path objects would take longer than their listing
    labels: tuple[int, ...]
    train_count: int | None  # None: there is no test folder, everything is one pool
    stamp: str  # sha256 over every file's name, size and time of change


def has_splits(root: Path) -> bool:
    """Whether the root holds `train/` and `test/`.

    Raises:
        DataError: it holds only one of the two.
    """
    train, test = ((root / split).is_dir() for split in ("train", "test"))
    if train != test:
        there, lacking = ("train", "test") if train else ("test", "train")
        raise DataError(
            f"An image folder needs both train/ and test/, or neither; {root} has {there}/ and no {lacking}/. "
            f"Add {lacking}/, or move the class folders up into {root}."
        )
    return train


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in the folder, by name; dot files are the operating system's, not the data set's."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"An image folder must be a readable folder; {folder} is not: {error.strerror}. Check the path."
        ) from error


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(entry.name for entry in _entries(folder) if entry.is_dir())


def _members(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of change of every image of a class."""
    for entry in _entries(folder):
        try:
            is_dir, stat = entry.is_dir(), entry.stat()
        except OSError as error:
            raise DataError(f"A class folder must hold readable files; {entry.path}: {error.strerror}.") from error
        if is_dir:
            raise DataError(
                f"A class folder must hold images only; {entry.path} is a folder. "
                "Move its images up, or give the data set's root one level deeper."
            )
        yield entry.path, stat.st_size, stat.st_mtime_ns


def _same_classes(train: Path, test: Path) -> tuple[str, ...]:
    classes = _classes(train)
    odd = sorted(set(classes) ^ set(_classes(test)))
    if odd:
        lacking = test if odd[0] in classes else train
        raise DataError(
            f"train/ and test/ must hold the same classes; {lacking / odd[0]} is missing"
            f"{f' (and {len(odd) - 1} more)' if len(odd) > 1 else ''}. "
            "Add the folder with its images, or remove the class from both."
        )
    return classes


def _at_least_two(folder: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    if len(classes) < 2:
        raise DataError(
            f"An image folder must hold one sub-folder a class, two at least; {folder} has {len(classes)}. "
            "Sort the images into a folder for each class."
        )
    return classes


def list_images(root: Path) -> Listing:
    """List an image folder without opening a file.

    Raises:
        DataError: a missing or unreadable folder, fewer than two classes, an empty class, a class that only one of
            `train/` and `test/` has, a folder where an image should be.
    """
    splits = [root / "train", root / "test"] if has_splits(root) else [root]
    classes = _at_least_two(splits[0], _same_classes(*splits) if len(splits) > 1 else _classes(root))
    digest, files, labels, ends = hashlib.sha256(), list[str](), list[int](), list[int]()
    for split in splits:
        for label, name in enumerate(classes):
            before = len(files)
            for path, size_bytes, mtime_ns in _members(split / name):
                files.append(path)
                digest.update(
                    f"{path.removeprefix(str(root))}\0{size_bytes}\0{mtime_ns}\n".encode(errors="surrogateescape")
                )
            labels += [label] * (len(files) - before)
            if len(files) == before:
                raise DataError(f"Every class must have images; {split / name} is empty. Add some, or remove it.")
        ends.append(len(files))
    return Listing(root, classes, tuple(files), tuple(labels), ends[0] if len(splits) > 1 else None, digest.hexdigest())
