"""The German Traffic Sign Recognition Benchmark as a fleet: which tracks are whose. Knows files and tracks; not pixels.

Stallkamp, Schlipsing, Salmen and Igel: "Man vs. computer: Benchmarking machine learning algorithms for traffic sign
recognition", Neural Networks 32 (2012), doi 10.1016/j.neunet.2012.02.016. A track is what one car's camera saw of one
sign while it drove past: some thirty frames, each nearer than the last. Frames of one track are near copies of one
another, so a whole track is the cloud's or one camera's, and the benchmark's test images are of other signs.

Nobody recorded when a track was filmed. Their order in time is drawn once, the same for all: sorted by class, a camera
would see one class after the other.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from fed_lorac.data.dataset import OwnImages
from fed_lorac.data.image_folder import Listing, list_images
from fed_lorac.errors import ConfigError, DataError
from fed_lorac.seeds import stream

__all__ = ["Tracks", "assign_tracks", "list_tracks"]

_FRAME = re.compile(r"(\d+)_(\d+)\.\w+")


@dataclass(frozen=True)
class Tracks:
    """The benchmark's files: track by track in the order of time, then the test images in an order that is drawn once.

    `track`: of each training image, numbered by class and by name within it.
    """

    listing: Listing
    track: Int64[np.ndarray, " n"]


def list_tracks(root: Path) -> Tracks:
    """List `train/<class>/<track>_<frame>.<ending>` and `test/<class>/<any name>` below the root; opens no file.

    Raises:
        DataError: as `list_images`, or a training image whose name is another.
    """
    listing = list_images(root)
    if (start := listing.train_count) is None:
        raise DataError(
            f"Traffic signs must lie in train/ and test/; {root} has neither. Sort them so: see docs/data.md."
        )
    names = [(listing.labels[i], *_track_and_frame(listing.files[i])) for i in range(start)]
    numbers = {name: number for number, name in enumerate(sorted({(label, track) for label, track, _ in names}))}
    track = np.array([numbers[label, one] for label, one, _ in names], np.int64)
    frame = np.array([frame for *_, frame in names], np.int64)
    lots = stream(0, "traffic signs", "tracks").permutation(len(numbers))
    test = start + stream(0, "traffic signs", "test").permutation(len(listing.files) - start)
    order = np.concatenate([np.lexsort((frame, lots[track])), test])
    files, labels = (tuple(whole[i] for i in order) for whole in (listing.files, listing.labels))
    return Tracks(replace(listing, files=files, labels=labels), track[order[:start]])


def _track_and_frame(file: str) -> tuple[int, int]:
    if (found := _FRAME.fullmatch(Path(file).name)) is None:
        raise DataError(
            f"A training image of a traffic sign is named by its track and frame, as 00012_00003.webp; {file} is not. "
            "Rename it as its authors did."
        )
    return int(found[1]), int(found[2])


def assign_tracks(
    labels: Int64[np.ndarray, " n"], track: Int64[np.ndarray, " m"], *, cloud_share: float, cameras: int
) -> tuple[Int64[np.ndarray, " c"], tuple[OwnImages, ...]]:
    """The cloud's images and each camera's, by rank: nothing is drawn.

    Of a class's tracks the first `cloud_share` are the cloud's. The others go round the cameras, class after class, so
    that each camera sees as many classes as there are tracks for; and so do the test images, of the classes in turn.

    Args:
        labels: of all images, the test images last.
        track: of each training image.
        cloud_share: of each class's tracks.
        cameras: how many share the others.

    Raises:
        ConfigError: more cameras than tracks or test images.
    """
    whose = _whose_tracks(labels, track, cloud_share, cameras)[track]
    start = len(track)
    by_class = start + np.argsort(labels[start:], kind="stable")
    own = [
        OwnImages(f"camera {k}", np.flatnonzero(whose == k), np.sort(by_class[k::cameras]), track[whose == k])
        for k in range(cameras)
    ]
    if lacking := [one.camera for one in own if not len(one.train) or not len(one.evaluation)]:
        most = cameras - len(lacking)
        raise ConfigError(
            f"Every camera has a track and a test image of its own; got {cameras} cameras, and there are tracks and "
            f"test images for {most}. Set fleet.cameras to {most} or fewer."
        )
    return np.flatnonzero(whose < 0), tuple(own)


def _whose_tracks(
    labels: Int64[np.ndarray, " n"], track: Int64[np.ndarray, " m"], cloud_share: float, cameras: int
) -> Int64[np.ndarray, " tracks"]:
    """Of each track its camera; -1: the cloud."""
    number, first = np.unique(track, return_index=True)
    of_class = labels[first]
    whose = np.full(len(number), -1, np.int64)
    for label in np.unique(of_class):
        members = np.flatnonzero(of_class == label)
        whose[members[round(cloud_share * len(members)) :]] = 0
    fleet = np.flatnonzero(whose == 0)
    whose[fleet] = np.arange(len(fleet)) % cameras
    return whose
