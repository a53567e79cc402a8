"""Laws of data sets whose cameras keep their own images: folders, tables, somebody else's, and traffic signs."""

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fed_lorac.config import FleetConfig
from fed_lorac.data.camera_files import list_cameras
from fed_lorac.data.camera_table import read_table
from fed_lorac.data.dataset import Dataset
from fed_lorac.data.datasets import load
from fed_lorac.data.own_cameras import own_images
from fed_lorac.data.traffic_signs import assign_tracks, list_tracks
from fed_lorac.errors import ConfigError, DataError
from fed_lorac.fleet.assignment import build_fleet
from fed_lorac.fleet.fleet import Fleet
from fed_lorac.fleet.validation import set_apart
from fed_lorac.testing import check_dataset


def shade(path: Path, level: int) -> None:
    """An image of one grey, which tells it apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), level).save(path)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    """Three cameras; the second names its files by the hour, across classes. Greys count up as time does."""
    for k, camera in enumerate(("east", "north", "west")):
        for hour in range(10):
            label = ("ant", "bee")[hour % 2] if camera != "west" else "bee"
            shade(tmp_path / "yard" / camera / label / f"{hour:02}.png", 50 * k + hour)
    return tmp_path / "yard"


def greys(data: Dataset, indices: np.ndarray) -> list[int]:
    return [int(level) for level in data.images[indices, 0, 0, 0]]


def fleet_of(data: Dataset, **asked: object) -> Fleet:
    asked = {"cameras": len(data.cameras), "per_round": 1} | asked
    return build_fleet(FleetConfig(**asked), data, 0)  # type: ignore[arg-type]


def whole(data: Dataset) -> None:
    """No image is in two places, and every camera has what it took."""
    parts = [data.cloud, *(part for one in data.cameras for part in (one.train, one.evaluation))]
    every = np.concatenate(parts)
    assert len(np.unique(every)) == len(every)
    for name, pool in (("train", data.fleet), ("evaluation", data.evaluation)):
        assert np.array_equal(np.sort(np.concatenate([getattr(one, name) for one in data.cameras])), pool)


def test_each_camera_keeps_its_images_in_the_order_of_their_names_and_is_measured_on_the_latest(
    yard: Path, cache: Path
) -> None:
    data = load("cameras", yard, image_size=8, cache_dir=cache)
    assert data.classes == ("ant", "bee") and data.name == "cameras (yard)"
    assert [one.camera for one in data.cameras] == ["east", "north", "west"]
    for k, one in enumerate(data.cameras):
        assert greys(data, one.train) == [50 * k + hour for hour in range(8)]
        assert greys(data, one.evaluation) == [50 * k + 8, 50 * k + 9]
    assert data.labels[data.cameras[0].train].tolist() == [0, 1] * 4
    whole(data)
    half = load("cameras", yard, image_size=8, cache_dir=cache, eval_share=0.5)
    assert [len(one.evaluation) for one in half.cameras] == [5, 5, 5]
    assert len(list(cache.glob("*/entry.json"))) == 1  # decoded once


def test_the_cloud_may_have_cameras_and_the_fleet_the_others(yard: Path, cache: Path) -> None:
    data = load("cameras", yard, image_size=8, cache_dir=cache, cloud_cameras=("east",))
    assert greys(data, data.cloud) == list(range(10))
    assert [one.camera for one in data.cameras] == ["north", "west"]
    whole(data)
    other = load("cameras", yard, image_size=8, cache_dir=cache, cloud_cameras=("north",))
    assert other.fingerprint != data.fingerprint  # who is the cloud's decides what a base has seen
    assert load(
        "cameras", yard, image_size=8, cache_dir=cache, eval_share=0.4, cloud_cameras=("east",)
    ).fingerprint == (data.fingerprint)


@pytest.mark.parametrize(
    ("cloud", "law"),
    [
        (("south",), "'south' is not"),
        (("east", "north", "west"), "keep a camera"),
        (("west",), "none of 'ant'"),
    ],
)
def test_a_cloud_is_of_cameras_that_are_there_and_see_every_class(
    yard: Path, cache: Path, cloud: tuple[str, ...], law: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=law):
        load("cameras", yard, image_size=8, cache_dir=cache, cloud_cameras=cloud)


def test_a_tree_of_test_images_is_measured_on(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    for k, camera in enumerate(("east", "north")):
        for hour in range(6):
            part = "Train" if hour < 4 else "test"
            shade(tmp_path / "yard" / part / camera / "ab"[hour % 2] / f"{hour}.png", 10 * k + hour)
    data = load("cameras", tmp_path / "yard", image_size=8, cache_dir=cache)
    assert [greys(data, one.train) for one in data.cameras] == [[0, 1, 2, 3], [10, 11, 12, 13]]
    assert [greys(data, one.evaluation) for one in data.cameras] == [[4, 5], [14, 15]]
    whole(data)
    with caplog.at_level(logging.WARNING):
        cloud = load("cameras", tmp_path / "yard", image_size=8, cache_dir=cache, cloud_cameras=("north",))
    assert greys(cloud, cloud.cloud) == [10, 11, 12, 13] and "their 2 test images are not read" in caplog.text
    (tmp_path / "yard/test/west/a").mkdir(parents=True)
    shade(tmp_path / "yard/test/west/a/1.png", 3)
    with pytest.raises(DataError, match="'west' lacks one"):
        load("cameras", tmp_path / "yard", image_size=8, cache_dir=cache)


def alike(root: Path) -> None:
    """Two cameras whose classes differ in a blank."""
    for place in ("east/be e ", "west/be e"):
        shade(root / place / "1.png", 1)


@pytest.mark.parametrize(
    ("break_it", "law"),
    [
        (lambda root: shade(root / "south" / "1.png", 1), "CAMERA/CLASS/FILE"),
        (lambda root: (root / "east" / "cow").mkdir(), "no camera in .* has any of 'cow'"),
        (alike, "look"),
        (lambda root: shade(root / "lone" / "bee" / "1.png", 1), "'lone' lacks one"),
        (lambda root: (root / "east" / "bee" / "deeper").mkdir(), "images only"),
    ],
)
def test_folders_that_are_not_of_cameras_are_refused(
    yard: Path, cache: Path, break_it: Callable[[Path], object], law: str
) -> None:
    break_it(yard)
    with pytest.raises(DataError, match=law):
        load("cameras", yard, image_size=8, cache_dir=cache)


def table(root: Path, *rows: str, header: str = "path,label,camera,time") -> Path:
    (root / "frames.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return root / "frames.csv"


def pictured(root: Path, count: int) -> list[str]:
    for level in range(count):
        shade(root / f"{level}.png", level)
    return [f"{level}.png" for level in range(count)]


TIMES = {
    "numbers": ["9", "10", "1e1", "10.5", "1700000000000000001", "1700000000000000002"],
    "dates": ["2024-01-01", "2024-01-01T00:00:01", "20240102", "2024-01-02 03:00", "2024-02-01", "2025-01-01"],
    "moments": [f"2024-01-01T0{k // 2}:00:00+0{5 - k}:00" for k in range(6)],
}


@pytest.mark.parametrize("kind", TIMES)
def test_a_table_puts_each_cameras_images_in_the_order_of_time(tmp_path: Path, cache: Path, kind: str) -> None:
    names, when = pictured(tmp_path, 6), TIMES[kind]
    rows = [f"{name},{'ab'[k % 2]},yard,{time}" for k, (name, time) in enumerate(zip(names, when, strict=True))]
    data = load("cameras", table(tmp_path, *reversed(rows)), image_size=8, cache_dir=cache)
    (one,) = data.cameras
    assert greys(data, one.train) + greys(data, one.evaluation) == [0, 1, 2, 3, 4, 5]
    assert len(one.evaluation) == 1 and data.name == "cameras (frames.csv)"


def test_without_times_a_cameras_images_are_in_the_order_of_the_rows(tmp_path: Path) -> None:
    names = pictured(tmp_path, 6)
    order = [4, 0, 5, 2, 1, 3]
    rows = [f"{names[k]},{'ab'[k % 2]},yard," for k in order]
    files = read_table(table(tmp_path, *rows))
    assert [Path(file).name for file in files.files] == [names[k] for k in order]
    assert read_table(table(tmp_path, *reversed(rows))).stamp != files.stamp


def test_a_counter_in_file_names_counts_with_or_without_zeros(tmp_path: Path, cache: Path) -> None:
    for k in range(12):
        shade(tmp_path / "yard" / "east" / "ab"[k % 2] / f"frame{k}.png", k)
    (one,) = load("cameras", tmp_path / "yard", image_size=8, cache_dir=cache).cameras
    data = load("cameras", tmp_path / "yard", image_size=8, cache_dir=cache)
    assert greys(data, one.train) + greys(data, one.evaluation) == list(range(12))


@pytest.mark.parametrize("of_a_folder", [False, True])
def test_an_image_and_a_link_to_it_are_one_image(tmp_path: Path, of_a_folder: bool) -> None:
    shade(tmp_path / "one" / "0.png", 0)
    shade(tmp_path / "one" / "1.png", 1)
    (tmp_path / "two").mkdir() if not of_a_folder else (tmp_path / "two").symlink_to(tmp_path / "one")
    if not of_a_folder:
        (tmp_path / "two" / "0.png").symlink_to(tmp_path / "one" / "0.png")
    rows = ("one/0.png,a,x", "one/1.png,b,x", "two/0.png,a,y")
    with pytest.raises(DataError, match="lines 2 and 4"):
        read_table(table(tmp_path, *rows, header="path,label,camera"))


def test_a_table_may_say_which_images_are_measured_on_and_have_other_columns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = pictured(tmp_path, 4)
    rows = [f"{name},{'ab'[k % 2]},yard,{'test' if k == 0 else 'train'},x" for k, name in enumerate(names)]
    with caplog.at_level(logging.WARNING):
        files = read_table(table(tmp_path, *rows, header="path,label,camera,split,weight"))
    assert files.test == (True, False, False, False) and "not read: weight" in caplog.text


@pytest.mark.parametrize(
    ("rows", "header", "law"),
    [
        ([], "path,label,camera", "a row for each"),
        (["0.png,a,x"], "path;label;camera", "lacks path, label, camera"),
        (["0.png,a,x"], "path,label,label,camera", "'label' twice"),
        (["0.png,a,x,1", "1.png,b,x,2"], "path,label,camera,Time", "has 'Time'. Rename it to 'time'"),
        (["0.png,a"], "path,label,camera", "line 2 has not"),
        (["0.png,a,x,1,2"], "path,label,camera,time", "line 2 has not"),
        (["0.png,,x"], "path,label,camera", "a label; .* line 2"),
        (["0.png,a,x,soon", "1.png,b,x,1"], "path,label,camera,time", "line 2 has 'soon'"),
        (["0.png,a,x,1", "1.png,b,x,"], "path,label,camera,time", "line 3 has ''"),
        (["0.png,a,x,nan", "1.png,b,x,1"], "path,label,camera,time", "line 2 has 'nan'"),
        (["0.png,a,x,2024-01-01", "1.png,b,x,2024-01-01T00:00Z"], "path,label,camera,time", "offset from UTC"),
        (["0.png,a,x", "./0.png,b,x"], "path,label,camera", "lines 2 and 3"),
        (["0.png,a,x", "7.png,b,x"], "path,label,camera", "line 3: 7.png: No such file"),
        (["0.png,a,x", "1.png,a,x"], "path,label,camera", "two classes at least"),
        (["0.png,a,x,later", "1.png,b,x,test"], "path,label,camera,split", "train or test"),
        (['0.png,a,x", "1.png,"b'], "path,label,camera", "readable CSV"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path: Path, rows: list[str], header: str, law: str) -> None:
    pictured(tmp_path, 2)
    with pytest.raises(DataError, match=law):
        read_table(table(tmp_path, *rows, header=header))


def test_a_table_of_other_files_or_times_is_other_images(tmp_path: Path) -> None:
    names = pictured(tmp_path, 3)
    rows = [f"{name},{'ab'[k % 2]},yard,{k}" for k, name in enumerate(names)]
    first = read_table(table(tmp_path, *rows)).stamp
    assert read_table(table(tmp_path, *reversed(rows))).stamp == first
    assert read_table(table(tmp_path, *[row[:-1] + str(9 - k) for k, row in enumerate(rows)])).stamp != first
    os.utime(tmp_path / names[0], ns=(1, 1))
    assert read_table(table(tmp_path, *rows)).stamp != first


def test_a_fleet_has_the_cameras_of_its_data_with_their_names(yard: Path, cache: Path) -> None:
    data = load("cameras", yard, image_size=8, cache_dir=cache)
    fleet = fleet_of(data, corruptions="none, fog", severities="5")
    assert [camera.name for camera in fleet.cameras] == ["east", "north", "west"]
    assert [(camera.corruption, camera.severity) for camera in fleet.cameras] == [("none", 0), ("fog", 5), ("none", 0)]
    assert all(np.array_equal(one.train, its.train) for one, its in zip(data.cameras, fleet.cameras, strict=True))
    capped = fleet_of(data, images=3, eval_images=1, cameras=2)
    assert [greys(data, camera.train) for camera in capped.cameras] == [[5, 6, 7], [55, 56, 57]]
    assert [greys(data, camera.evaluation) for camera in capped.cameras] == [[9], [59]]
    assert np.array_equal(fleet_of(data, images=99).cameras[0].train, data.cameras[0].train)


@pytest.mark.parametrize(
    ("asked", "law"),
    [({"cameras": 4}, "has 3 cameras, got fleet.cameras = 4"), ({"label_skew": "dirichlet"}, "classes that they saw")],
)
def test_a_fleet_that_its_data_cannot_be_is_refused(
    yard: Path, cache: Path, asked: dict[str, object], law: str
) -> None:
    with pytest.raises(ConfigError, match=law):
        fleet_of(load("cameras", yard, image_size=8, cache_dir=cache), **asked)


@settings(max_examples=40, deadline=None)
@given(
    camera=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    share=st.floats(0.01, 0.99),
    cloud=st.sets(st.integers(0, 4), max_size=2),
)
def test_shares_of_the_latest_are_disjoint_and_within_an_image(
    camera: list[int], share: float, cloud: set[int]
) -> None:
    """By another route: image by image, counting how many of its camera come after it."""
    names = [f"c{k}" for k in range(5)]
    whose = np.sort(np.array(camera))
    try:
        pool, own = own_images(
            names, whose, np.zeros(len(whose), bool), eval_share=share, cloud={f"c{k}" for k in cloud}
        )
    except DataError:
        return
    assert set(pool.tolist()) == {i for i, k in enumerate(whose) if k in cloud}
    for one in own:
        k = int(one.camera[1:])
        for i in np.flatnonzero(whose == k):
            after, count = int((whose[i + 1 :] == k).sum()), int((whose == k).sum())
            assert (i in one.evaluation) == (after < max(1, round(share * count)))
            assert (i in one.evaluation) != (i in one.train)


SOURCE = """
import numpy as np
from fed_lorac.data.dataset import Images

def stripes(root, image_size):
    level = np.arange(24, dtype=np.uint8)
    images = np.broadcast_to(level[:, None, None, None], (24, image_size, image_size, 3)).copy()
    return Images(images, np.arange(24) % 2, ("even", "odd"), {})
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """A data set of somebody else's with these last fields, by name."""
    monkeypatch.syspath_prepend(tmp_path)

    def named(fields: str) -> str:
        module = f"cameras_{hashlib.sha256(fields.encode()).hexdigest()[:8]}"
        (tmp_path / f"{module}.py").write_text(SOURCE.format(fields))
        return f"{module}:stripes"

    return named


def test_somebody_elses_images_may_be_of_cameras(theirs: Callable[[str], str], cache: Path) -> None:
    def opened(fields: str) -> Dataset:
        return load(theirs(fields), image_size=8, cache_dir=cache)

    data = opened('None, ["", "b", "a"] * 8, np.arange(24)[::-1]')
    assert greys(data, data.cloud) == list(range(21, -1, -3))
    assert [one.camera for one in data.cameras] == ["a", "b"]
    assert greys(data, data.cameras[0].train) == [23, 20, 17, 14, 11, 8]
    assert greys(data, data.cameras[0].evaluation) == [5, 2]
    whole(data)
    as_given = opened('12, ["", "b", "a"] * 8')
    assert greys(as_given, as_given.cameras[1].train) == [1, 4, 7, 10]
    assert greys(as_given, as_given.cameras[1].evaluation) == [13, 16, 19, 22]
    dates = opened('None, ["", "b", "a"] * 8, np.datetime64("2024-01-01") + np.arange(24)')
    assert greys(dates, dates.cameras[0].train) == [2, 5, 8, 11, 14, 17]
    check_dataset(theirs('None, ["", "b", "a"] * 8, np.arange(24)[::-1]'), image_size=8)


@pytest.mark.parametrize(
    ("fields", "law"),
    [
        ('None, ["a"] * 5', "name the camera of each image"),
        ("None, list(range(24))", "name the camera of each image"),
        ('None, ["a"] * 24, np.arange(3)', "number or datetime64"),
        ('None, ["a"] * 24, ["noon"] * 24', "number or datetime64"),
        ('None, ["a"] * 24, np.full(24, np.nan)', "number or datetime64"),
        ("None, None, np.arange(24)", "time is of cameras"),
    ],
)
def test_somebody_elses_cameras_and_times_are_one_an_image(
    theirs: Callable[[str], str], fields: str, law: str, cache: Path
) -> None:
    with pytest.raises(ConfigError, match=law):
        load(theirs(fields), image_size=8, cache_dir=cache)


def test_a_data_set_of_cameras_keeps_the_laws(yard: Path) -> None:
    check_dataset("cameras", yard, image_size=8)
    check_dataset("cameras", yard, image_size=8, cloud_cameras=("north",), eval_share=0.3)


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    """Two classes of seven and nine tracks of three frames; five test images each."""
    for label, tracks in (("00", 7), ("01", 9)):
        for track in range(tracks):
            for frame in range(3):
                level = 100 * int(label) + 10 * track + frame
                shade(tmp_path / "gtsrb" / "train" / label / f"{track:05}_{frame:05}.png", level)
        for number in range(5):
            shade(tmp_path / "gtsrb" / "test" / label / f"{number:05}.png", 200 + number)
    return tmp_path


def test_a_track_of_signs_has_one_owner_and_comes_frame_by_frame(signs: Path, cache: Path) -> None:
    data = load("traffic-signs", signs, image_size=8, cache_dir=cache, cloud_share=0.5, cameras=3)
    assert sorted({level // 10 for level in greys(data, data.cloud)}) == [0, 1, 2, 3, 10, 11, 12, 13]
    tracks = []
    for one in data.cameras:
        seen = greys(data, one.train)
        assert seen == [10 * (level // 10) + k % 3 for k, level in enumerate(seen)]  # whole, in order
        tracks += [level // 10 for level in seen[::3]]
        assert set(data.labels[one.train]) == set(data.labels[one.evaluation]) == {0, 1}
        assert min(greys(data, one.evaluation)) >= 200
    assert sorted(tracks) == [4, 5, 6, 14, 15, 16, 17, 18]
    whole(data)
    again = load("traffic-signs", signs, image_size=8, cache_dir=cache, cloud_share=0.5, cameras=2)
    assert again.fingerprint == data.fingerprint and len(again.cameras) == 2
    check_dataset("traffic-signs", signs, image_size=8, cloud_share=0.5, cameras=3)


@pytest.mark.parametrize(("images", "share"), [(0, 0.25), (0, 0.4), (7, 0.3)])
def test_validation_on_signs_has_no_frame_of_a_track_that_is_trained_on(images: int, share: float) -> None:
    lengths = [3, 5, 4, 6] * 6
    track = np.repeat(np.arange(len(lengths)), lengths)
    labels = np.concatenate([track % 2, np.arange(20) % 2])
    own = assign_tracks(labels, track, cloud_share=0.5, cameras=3)[1]
    train = [np.array(one.train[-images:]) for one in own]
    for all_of, kept, apart in zip(train, *set_apart(train, labels, share, own), strict=True):
        assert np.array_equal(np.concatenate([kept, apart]), all_of) and len(kept) and len(apart)
        assert not set(track[kept]) & set(track[apart])
        assert images or abs(len(apart) - share * len(all_of)) <= max(lengths) / 2 + 1
    with pytest.raises(ConfigError, match="leaves 2 and 0"):
        set_apart([one[-2:] for one in train], labels, share, own)


def test_more_cameras_than_tracks_or_files_that_are_no_frames_are_refused(signs: Path, cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"fleet.cameras to 8"):
        load("traffic-signs", signs, image_size=8, cache_dir=cache, cloud_share=0.5, cameras=9)
    shade(signs / "gtsrb/train/00/sign.png", 1)
    with pytest.raises(DataError, match=r"sign.png is not"):
        list_tracks(signs / "gtsrb")


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 12), min_size=2, max_size=5),
    share=st.floats(0.1, 0.9),
    cameras=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_tracks_are_assigned_whole_and_evenly(lengths: list[int], share: float, cameras: int, seed: int) -> None:
    of_class = np.repeat(np.arange(len(lengths)), lengths)
    track = np.repeat(np.random.default_rng(seed).permutation(len(of_class)), 3)
    labels = np.concatenate([of_class[track], np.arange(20) % len(lengths)])
    try:
        cloud, own = assign_tracks(labels, track, cloud_share=share, cameras=cameras)
    except ConfigError:
        return
    owners = [set(track[cloud]), *(set(track[one.train]) for one in own)]
    assert sum(map(len, owners)) == len(set().union(*owners)) == len(of_class)
    assert max(map(len, owners[1:])) - min(map(len, owners[1:])) <= 1
    for label, count in enumerate(lengths):
        assert sum(int(of_class[one] == label) for one in owners[0]) == round(share * count)
        each = [sum(int(of_class[one] == label) for one in its) for its in owners[1:]]
        assert max(each) - min(each) <= 1


@pytest.mark.slow
def test_the_real_signs_are_a_fleet(real_data: Path) -> None:
    if not (real_data / "gtsrb").is_dir():
        pytest.skip("no gtsrb/ in FED_LORAC_DATA")
    data = load("traffic-signs", real_data, cloud_share=0.5, cameras=12)
    assert (len(data.classes), len(data.evaluation)) == (43, 12_630)
    assert len(data.cloud) + len(data.fleet) == 19_605
    assert min(len(set(data.labels[one.train])) for one in data.cameras) >= 25
    assert {len(one.evaluation) for one in data.cameras} == {1052, 1053}
    whole(data)


def test_an_image_that_is_not_square_is_squeezed_or_cropped_to_its_middle(tmp_path: Path, cache: Path) -> None:
    wide = Image.new("RGB", (32, 16), (255, 255, 255))
    wide.paste((0, 0, 0), (8, 0, 24, 16))  # the middle square is black
    for camera in ("x", "y"):
        for label in ("a", "b"):
            for number in range(4):
                (tmp_path / "wide" / camera / label).mkdir(parents=True, exist_ok=True)
                wide.save(tmp_path / "wide" / camera / label / f"{number}.png")
    squeezed = load("cameras", tmp_path / "wide", image_size=16, cache_dir=cache)
    cropped = load("cameras", tmp_path / "wide", image_size=16, cache_dir=cache, resize="crop")
    assert cropped.images.max() == 0 and squeezed.images[0, :, 0].min() == 255
    assert cropped.fingerprint != squeezed.fingerprint
    folder = load("folder", tmp_path / "wide" / "x", image_size=16, cache_dir=cache, resize="crop")
    assert folder.images.max() == 0


def test_a_listing_says_who_took_what(yard: Path) -> None:
    files = list_cameras(yard)
    assert files.cameras == ("east", "north", "west") and len(files.files) == 30
    assert all(Path(file).parts[-3] == files.cameras[k] for file, k in zip(files.files, files.camera, strict=True))
