"""The data sets whose cameras keep their own images, by name. Knows where each looks for its files; not fleets."""

import logging

import numpy as np

from fed_lorac.data.camera_files import CameraFiles, list_cameras
from fed_lorac.data.camera_table import read_table
from fed_lorac.data.dataset import Dataset
from fed_lorac.data.datasets import Request, files_of
from fed_lorac.data.decode import decode_all
from fed_lorac.data.image_folder import Listing
from fed_lorac.data.own_cameras import own_dataset, own_images
from fed_lorac.data.store import Entry, cached
from fed_lorac.data.traffic_signs import assign_tracks, list_tracks
from fed_lorac.runtime.source import source_of

__all__ = ["cameras", "traffic_signs"]

_CODE = ("camera_files", "camera_table", "class_names", "image_folder", "traffic_signs")


def cameras(ask: Request) -> Dataset:
    """Folders of cameras below the root, or a table, where the root is a file."""
    files = read_table(ask.root) if ask.root.is_file() else list_cameras(ask.root)
    camera, test = np.array(files.camera, np.int64), np.array(files.test)
    entry = _decoded(files, ask, camera=camera, test=test, cameras=np.array(files.cameras))
    cloud, own = own_images(files.cameras, camera, test, eval_share=ask.eval_share, cloud=ask.cloud_cameras)
    if unread := len(camera) - len(cloud) - sum(len(one.train) + len(one.evaluation) for one in own):
        logging.getLogger(__name__).warning(
            "%s: the cloud's cameras are not measured: their %d test images are not read", ask.root, unread
        )
    return own_dataset(f"cameras ({ask.root.name})", entry, cloud, own)


def traffic_signs(ask: Request) -> Dataset:
    """German traffic signs, cameras as groups of tracks: `gtsrb/` below the root, or the root itself.

    The cloud has a share of the tracks.

    Source: Stallkamp et al. 2012, doi 10.1016/j.neunet.2012.02.016
    """
    tracks = list_tracks(ask.root / "gtsrb" if (ask.root / "gtsrb").is_dir() else ask.root)
    entry = _decoded(tracks.listing, ask, track=tracks.track)
    cloud, own = assign_tracks(
        np.array(entry.arrays["labels"]), tracks.track, cloud_share=ask.cloud_share, cameras=ask.cameras
    )
    return own_dataset("traffic-signs (GTSRB)", entry, cloud, own)


def _decoded(listing: CameraFiles | Listing, ask: Request, **more: np.ndarray) -> Entry:
    def build() -> dict[str, np.ndarray]:
        images = decode_all(listing.files, ask.image_size, f"decoding {listing.root.name}", ask.resize)
        labels, classes = np.array(listing.labels, np.int64), np.array(listing.classes)
        return {"images": images, "labels": labels, "classes": classes, **more}

    code = source_of(__name__, *(f"fed_lorac.data.{module}" for module in _CODE), "fed_lorac.seeds")
    return cached(f"images of {files_of(listing, ask)}, {code}", build, ask.cache_dir)
