"""Files that cameras took, one folder a camera or one row of a table an image. Knows names, sizes and times of files;
never opens an image.

Two layouts of folders: `root/<camera>/<class>/<file>`, and `root/train/<camera>/<class>/<file>` with
`root/test/<camera>/<class>/<file>` beside it, both in any capitalisation. A camera may lack classes. Its images come in
the order of their file names, whatever their class: cameras name files by the clock or by a counter. Numbers in names
are compared as numbers, as a counter may have no zeros before it.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fed_lorac.data.class_names import check_distinct, in_form_c
from fed_lorac.data.image_folder import folders_of, members_of, splits_of
from fed_lorac.errors import DataError

__all__ = ["CameraFiles", "Shot", "camera_files", "list_cameras"]

_NUMBER = re.compile("([0-9]+)")


@dataclass(frozen=True)
class Shot:
    """One image's file. `when` puts those of a camera in order; `about` tells whether the file is still the same."""

    file: str
    label: str
    camera: str
    test: bool
    when: Any
    about: tuple[int, int]  # size in bytes, time of change in ns


@dataclass(frozen=True)
class CameraFiles:
    """The images below a root, camera by camera, each camera's in the order of time."""

    root: Path
    files: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    camera: tuple[int, ...]  # of each file, its place in `cameras`
    cameras: tuple[str, ...]
    test: tuple[bool, ...]
    stamp: str  # sha256 over every file's name, size and time of change, in this order


def camera_files(root: Path, shots: Iterable[Shot], classes: Iterable[str] = ()) -> CameraFiles:
    """Put shots in order: by camera, by time, by name. `classes` that have no shot are an error.

    Raises:
        DataError: fewer than two classes, a class without images, two classes or cameras of the same look.
    """
    ordered = sorted(shots, key=lambda shot: (in_form_c(shot.camera), shot.when, shot.file))
    cameras, labels = tuple(dict.fromkeys(shot.camera for shot in ordered)), {shot.label for shot in ordered}
    names = tuple(sorted(labels | set(classes)))
    check_distinct(names, root)
    check_distinct(cameras, root)
    if empty := sorted(set(names) - labels):
        raise DataError(
            f"Every class must have images; no camera in {root} has any of {empty[0]!r}. Remove its folders."
        )
    if len(names) < 2:
        raise DataError(f"Cameras must see two classes at least; those in {root} see {len(names)}. Add the others.")
    places, numbers = ({name: place for place, name in enumerate(every)} for every in (cameras, names))
    digest = hashlib.sha256()
    for shot in ordered:
        said = shot.file.removeprefix(str(root)), shot.label, shot.camera, shot.test, shot.about
        digest.update(f"{said}\n".encode(errors="surrogateescape"))
    return CameraFiles(
        root,
        tuple(shot.file for shot in ordered),
        tuple(numbers[shot.label] for shot in ordered),
        names,
        tuple(places[shot.camera] for shot in ordered),
        cameras,
        tuple(shot.test for shot in ordered),
        digest.hexdigest(),
    )


def list_cameras(root: Path) -> CameraFiles:
    """List folders of cameras without opening a file.

    Raises:
        DataError: as `image_folder.list_images`, of each camera's folder.
    """
    splits = splits_of(root)
    shots, classes = list[Shot](), set[str]()
    for test, folder in ((False, splits[0]), (True, splits[1])) if splits else ((False, root),):
        for camera, its in folders_of(folder).items():
            if not (of_class := folders_of(its)):
                raise DataError(
                    f"A camera's folder must hold one sub-folder a class; {its} has none. The layout is "
                    f'CAMERA/CLASS/FILE: put it one level deeper, or take data.name = "folder" for CLASS/FILE.'
                )
            classes |= set(of_class)
            for label, there in of_class.items():
                shots += [
                    Shot(file, label, camera, test, _counted(Path(file).name), (size_bytes, mtime_ns))
                    for file, size_bytes, mtime_ns in members_of(there)
                ]
    return camera_files(root, shots, classes)


def _counted(name: str) -> tuple[str | int, ...]:
    """A file's name in parts, text and number in turn: 2.jpg comes before 10.jpg."""
    return tuple(int(part) if at % 2 else part for at, part in enumerate(_NUMBER.split(in_form_c(name))))
