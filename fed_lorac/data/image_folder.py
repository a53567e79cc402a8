"""Folders of images, one sub-folder a class. Knows names, sizes and times of files; never opens one.

Two layouts: `root/<class>/<file>`, and `root/train/<class>/<file>` with `root/test/<class>/<file>` beside it, both in
any capitalisation. Classes are numbered in the order of their names, and a class's images are ordered by file name.
Names are taken in Unicode's normal form C: a folder that came through a Mac has the same classes in the same order.
"""

import hashlib
import logging
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fed_lorac.data.class_names import check_distinct, class_name, in_form_c
from fed_lorac.errors import DataError

__all__ = ["Listing", "folders_of", "has_splits", "list_images", "members_of", "splits_of"]

_SPLITS = ("train", "test")
_LIKE_SPLITS = {*_SPLITS, "training", "testing", "val", "valid", "validation", "eval", "evaluation", "dev"}
_NAMED = 10  # of the missing folders
_SYSTEM = {"thumbs.db", "desktop.ini", "__macosx"}


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
    """Whether the root holds `train/` and `test/`, in any capitalisation.

    Raises:
        DataError: it holds only one of the two, or one of them twice, or only folders that are named like splits.
    """
    return splits_of(root) is not None


def list_images(root: Path) -> Listing:
    """List an image folder without opening a file. What lies beside `train/` and `test/` is not read, and is said.

    Raises:
        DataError: a missing or unreadable folder, fewer than two classes, an empty class, a class that only one of
            `train/` and `test/` has, classes of the same look, a name that is no text, a link that leads nowhere,
            anything but a file where an image should be.
    """
    splits = splits_of(root) or (root,)
    if len(splits) > 1 and (others := sorted(set(_folder_names(root)) - {split.name for split in splits})):
        logging.getLogger(__name__).warning(
            "%s has %s/ and %s/: what else it has is not read: %s/", root, *(s.name for s in splits), "/, ".join(others)
        )
    found = [folders_of(split) for split in splits]
    _check_classes(splits, found)
    digest, files, labels, ends = hashlib.sha256(), list[str](), list[int](), list[int]()
    for folders in found:
        for label, folder in enumerate(folders.values()):
            before = len(files)
            for path, size_bytes, mtime_ns in members_of(folder):
                files.append(path)
                digest.update(
                    f"{path.removeprefix(str(root))}\0{size_bytes}\0{mtime_ns}\n".encode(errors="surrogateescape")
                )
            labels += [label] * (len(files) - before)
            if len(files) == before:
                raise DataError(f"Every class must have images; {folder} is empty. Add some, or remove it.")
        ends.append(len(files))
    train_count = ends[0] if len(splits) > 1 else None
    return Listing(root, tuple(found[0]), tuple(files), tuple(labels), train_count, digest.hexdigest())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in the folder, by name; dot files and the like are the operating system's, not the data set's."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if not (entry.name.startswith(".") or entry.name.casefold() in _SYSTEM)),
                key=lambda entry: (in_form_c(entry.name), entry.name),
            )
    except OSError as error:
        raise DataError(
            f"An image folder must be a readable folder; {folder} is not: {error.strerror}. Check the path."
        ) from error


def _kind(entry: os.DirEntry[str]) -> os.stat_result:
    """Size, time and kind of what an entry is or leads to."""
    try:
        return entry.stat()
    except OSError as error:
        what = "is a link that leads nowhere" if entry.is_symlink() else "cannot be looked at"
        raise DataError(
            f"An image folder must hold readable files and folders; {entry.path} {what}: {error.strerror}. "
            "Fix it, or remove it."
        ) from error


def _folder_names(root: Path) -> list[str]:
    """The folders in the root, and links, which may lead to one."""
    return [entry.name for entry in _entries(root) if entry.is_symlink() or entry.is_dir()]


def splits_of(root: Path) -> tuple[Path, Path] | None:
    """The folders of training and of test images, where the root has both."""
    names = _folder_names(root)
    found = {split: [name for name in names if name.casefold() == split] for split in _SPLITS}
    for split, spelt in found.items():
        if len(spelt) > 1:
            raise DataError(
                f"An image folder must have one {split}/; {root} has {'/ and '.join(spelt)}/. "
                "Merge them, or move one away."
            )
    if found["train"] and found["test"]:
        return root / found["train"][0], root / found["test"][0]
    if found["train"] or found["test"]:
        there, lacking = ("train", "test") if found["train"] else ("test", "train")
        others = [name for name in names if name.casefold() in _LIKE_SPLITS and name not in found[there]]
        rename = f"Rename {' or '.join(f'{name}/' for name in others)} to {lacking}/" if others else f"Add {lacking}/"
        raise DataError(
            f"An image folder needs both train/ and test/, or neither; "
            f"{root} has {found[there][0]}/ and no {lacking}/. {rename}, or move the class folders up into {root}. "
            f"If {found[there][0]}/ is a class, rename it."
        )
    if names and all(name.casefold() in _LIKE_SPLITS for name in names):
        raise DataError(
            f"The splits of an image folder must be called train/ and test/; {root} has {'/, '.join(names)}/. "
            "Rename them; if they are classes, give them other names."
        )
    return None


def folders_of(folder: Path) -> dict[str, Path]:
    """The folders of classes, or of cameras, by name, in order. Plain files beside them are none of the data set's."""
    found: list[tuple[str, Path]] = []
    for entry in _entries(folder):
        mode = _kind(entry).st_mode
        if stat.S_ISREG(mode):
            continue
        if not stat.S_ISDIR(mode):
            raise DataError(
                f"Beside class folders there may be plain files; {entry.path} is neither folder nor file. Remove it."
            )
        found.append((class_name(entry.name, folder), Path(entry.path)))
    check_distinct((name for name, _ in found), folder)
    real: dict[str, Path] = {}
    for _, path in found:
        if (other := real.setdefault(os.path.realpath(path), path)) is not path:
            raise DataError(f"Two names must be two folders; {other} and {path} are one by a link. Remove the link.")
    return dict(found)


def _check_classes(splits: tuple[Path, ...], found: Sequence[Mapping[str, Path]]) -> None:
    """Two classes at least, and the same ones in all splits."""
    missing = [
        splits[there] / name for here, there in ((0, -1), (-1, 0)) for name in found[here] if name not in found[there]
    ]
    if missing:
        raise DataError(
            f"train/ and test/ must hold the same classes; missing: {', '.join(map(str, missing[:_NAMED]))}"
            f"{f' and {len(missing) - _NAMED} more' if len(missing) > _NAMED else ''}. "
            "Add each folder with its images, or remove the class from both."
        )
    if len(found[0]) < 2:
        raise DataError(
            f"An image folder must hold one sub-folder a class, two at least; {splits[0]} has {len(found[0])}. "
            "Sort the images into a folder for each class."
        )


def members_of(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of change of every image of a class."""
    for entry in _entries(folder):
        found = _kind(entry)
        if stat.S_ISDIR(found.st_mode):
            raise DataError(
                f"A class folder must hold images only; {entry.path} is a folder. "
                "Move its images up, or give the data set's root one level deeper."
            )
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"A class folder must hold images only; {entry.path} is not a file. Remove it.")
        yield entry.path, found.st_size, found.st_mtime_ns
