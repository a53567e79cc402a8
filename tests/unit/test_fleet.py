"""Laws of the fleet: no image twice, nothing moves that need not, and the same seed gives the same fleet."""

import dataclasses
import pickle
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fed_lorac.config import Config, FleetConfig
from fed_lorac.data.dataset import OwnImages
from fed_lorac.errors import ConfigError, DataError
from fed_lorac.fleet.assignment import build_fleet
from fed_lorac.fleet.fleet import Camera, Fleet

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """A data set without pixels: sorted by class, pools interleaved."""

    labels: Indices
    classes: tuple[str, ...]
    fleet: Indices
    evaluation: Indices
    name: str = "stub"
    cameras: tuple[OwnImages, ...] = ()


def images(n: int = 600, classes: int = 5) -> Images:
    """Two thirds of `n` images for the fleet, the last of every three for the evaluation."""
    indices = np.arange(n, dtype=np.int64)
    labels = indices * classes // n
    names = tuple(f"class {k}" for k in range(classes))
    return Images(labels, names, indices[indices % 3 < 2], indices[indices % 3 == 2])


def fleet_of(data: Images | None = None, seed: int = 0, alpha: float = 0.5, **asked: Any) -> Fleet:
    asked.setdefault("per_round", asked.get("cameras", 12))
    tables = {"dirichlet": {"alpha": alpha}} if asked.get("label_skew") == "dirichlet" else {}
    return build_fleet(FleetConfig(**asked, tables=tables), data or images(), seed)


def told(fleet: Fleet) -> list[tuple[Any, ...]]:
    return [
        (*dataclasses.astuple(camera)[:3], *map(tuple, (camera.train, camera.evaluation))) for camera in fleet.cameras
    ]


asks = st.fixed_dictionaries(
    {
        "cameras": st.integers(1, 10),
        "images": st.integers(0, 40),
        "eval_images": st.integers(0, 20),
        "label_skew": st.sampled_from(["iid", "dirichlet"]),
        "alpha": st.floats(0.05, 100),
    }
)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(30, 900), asked=asks, seed=st.integers(0, 2**63 - 1))
def test_no_image_that_any_camera_trains_on_is_evaluated_anywhere(n: int, asked: dict[str, Any], seed: int) -> None:
    data = images(n)
    cameras, each, eval_each = asked["cameras"], asked["images"], asked["eval_images"]
    try:
        fleet = fleet_of(data, seed, **asked)
    except ConfigError as error:
        too_many = cameras * each > len(data.fleet) or cameras * eval_each > len(data.evaluation)
        assert too_many or (asked["label_skew"] == "dirichlet" and "dirichlet.alpha" in str(error))
        return
    train = np.concatenate([camera.train for camera in fleet.cameras])
    evaluation = np.concatenate([camera.evaluation for camera in fleet.cameras])
    both = np.concatenate([train, evaluation])
    assert len(np.unique(both)) == len(both)
    assert set(train) <= set(data.fleet)
    assert set(evaluation) <= set(data.evaluation)
    assert len(train) == (cameras * each or len(data.fleet))
    assert len(evaluation) == (cameras * eval_each or len(data.evaluation))
    for camera in fleet.cameras:
        assert len(camera.train) > 0
        assert len(camera.evaluation) > 0
        assert sum(camera.label_mix.values()) == pytest.approx(1)
        assert tuple(camera.label_mix) == data.classes
        counted = Counter(data.classes[label] for label in data.labels[camera.train])
        assert {k: v * len(camera.train) for k, v in camera.label_mix.items() if v} == pytest.approx(dict(counted))


@pytest.mark.parametrize("skew", ["iid", "dirichlet"])
def test_the_seed_decides_the_fleet_and_nothing_else(skew: str) -> None:
    np.random.seed(1)  # noqa: NPY002  (the global generator must not matter)
    first = told(fleet_of(seed=3, label_skew=skew))
    np.random.seed(2)  # noqa: NPY002
    assert told(fleet_of(seed=3, label_skew=skew)) == first
    assert told(fleet_of(seed=4, label_skew=skew)) != first


def test_building_a_fleet_leaves_the_global_generator_alone() -> None:
    before = np.random.get_state()[1].tobytes()  # type: ignore[index, union-attr]  # noqa: NPY002
    fleet_of(label_skew="dirichlet")
    assert np.random.get_state()[1].tobytes() == before  # type: ignore[index, union-attr]  # noqa: NPY002


def test_one_camera_more_leaves_every_other_camera_as_it_was() -> None:
    asked: dict[str, Any] = {"images": 20, "eval_images": 10}
    assert told(fleet_of(cameras=9, **asked))[:8] == told(fleet_of(cameras=8, **asked))


def test_evaluation_images_do_not_move_with_the_skew() -> None:
    iid, skewed = fleet_of(), fleet_of(label_skew="dirichlet")
    for a, b in zip(iid.cameras, skewed.cameras, strict=True):
        assert np.array_equal(a.evaluation, b.evaluation)


def test_an_iid_assignment_is_the_shuffled_pool_in_equal_parts() -> None:
    from fed_lorac.seeds import stream

    data = images()
    parts = np.array_split(stream(5, "fleet", "train").permutation(data.fleet), 7)
    for camera, part in zip(fleet_of(data, 5, cameras=7).cameras, parts, strict=True):
        assert np.array_equal(camera.train, np.sort(part))


def skew_of(fleet: Fleet) -> float:
    return float(np.mean([max(camera.label_mix.values()) for camera in fleet.cameras]))


def test_a_smaller_alpha_skews_the_labels_more() -> None:
    data = images(6000, 10)
    skews = [skew_of(fleet_of(data, label_skew="dirichlet", alpha=alpha)) for alpha in (0.1, 1.0, 100.0)]
    assert skews[0] > 0.5 > skews[1] > 0.2 > skews[2]
    assert skew_of(fleet_of(data)) < 0.16  # class-sorted images, yet iid


def test_every_weather_meets_every_severity() -> None:
    fleet = fleet_of(cameras=12, corruptions="fog, snow, frost, shot_noise", severities="3, 4, 5", link="4g, lte-m")
    assert len({(camera.corruption, camera.severity) for camera in fleet.cameras}) == 12
    assert [camera.id for camera in fleet.cameras] == list(range(12))
    assert [camera.corruption for camera in fleet.cameras[:5]] == ["fog", "snow", "frost", "shot_noise", "fog"]
    assert [camera.severity for camera in fleet.cameras[:5]] == [3, 3, 3, 3, 4]
    assert [camera.link for camera in fleet.cameras[:3]] == ["4g", "lte-m", "4g"]


def equals(cameras: int, per_round: int, seed: int, **chances: float) -> Fleet:
    """A fleet of cameras that differ in nothing but their number."""
    return Fleet(tuple(with_images(i, 5) for i in range(cameras)), per_round, seed, **chances)


def with_images(camera: int, images: int) -> Camera:
    return Camera(camera, "fog", 3, np.arange(images), np.arange(1), {}, "4g")


def test_those_with_most_images_are_asked_first() -> None:
    fleet = Fleet(tuple(with_images(i, n) for i, n in enumerate([3, 9, 3, 12, 9])), 5, 0)
    assert fleet.drawn(1) == (3, 1, 4, 0, 2)


@settings(max_examples=50)
@given(seed=st.integers(0, 99), round=st.integers(1, 1000), chance=st.floats(0.05, 1))
def test_a_camera_that_is_away_is_not_sampled(seed: int, round: int, chance: float) -> None:
    fleet = equals(20, 20, seed, availability=chance)
    assert sorted(fleet.drawn(round)) == sorted(set(range(20)) - fleet.away(round))
    assert fleet.away(round) == equals(20, 3, seed, availability=chance, dropout=0.5).away(round)


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.9])
def test_cameras_are_away_and_drop_out_as_often_as_was_said(chance: float) -> None:
    fleet = equals(50, 50, 3, availability=1 - chance, dropout=chance)
    for drawn in (fleet.away, fleet.dropped):
        share = sum(len(drawn(round)) for round in range(400)) / 20_000
        assert abs(share - chance) < 4.5 * np.sqrt(chance * (1 - chance) / 20_000)
    assert [fleet.away(round) for round in range(9)] != [fleet.dropped(round) for round in range(9)]
    assert not equals(9, 9, 0).away(1) and not equals(9, 9, 0).dropped(1)


@settings(max_examples=50)
@given(cameras=st.integers(1, 60), share=st.floats(0, 1), seed=st.integers(0, 99), round=st.integers(0, 1000))
def test_a_round_draws_distinct_cameras_in_order(cameras: int, share: float, seed: int, round: int) -> None:
    per_round = max(1, int(share * cameras))
    drawn = equals(cameras, per_round, seed).drawn(round)
    assert len(set(drawn)) == len(drawn) == per_round
    assert list(drawn) == sorted(drawn)
    assert set(drawn) <= set(range(cameras))
    wider = equals(cameras + 1, per_round, seed).drawn(round)
    assert len(set(drawn) - set(wider)) <= 1


def test_every_camera_is_drawn_equally_often() -> None:
    fleet = equals(10, 3, 0)
    counts = Counter(camera for round in range(2000) for camera in fleet.drawn(round))
    spread = np.sqrt(2000 * 0.3 * 0.7)
    assert all(abs(counts[camera] - 600) < 4.5 * spread for camera in range(10))
    assert len({fleet.drawn(round) for round in range(50)}) > 20


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"cameras": 8, "images": 51}, r"takes 408, and the fleet's pool of stub holds 400.*50 or less.*7 or fewer"),
        ({"cameras": 8, "eval_images": 26}, r"takes 208, and the evaluation pool of stub holds 200.*25 or less"),
        ({"cameras": 300}, r"evaluation pool of stub holds 200.*Set fleet\.cameras to 200 or fewer"),
        ({"cameras": 500, "images": 1000}, r"Set data\.name to a larger data set"),
    ],
)
def test_too_few_images_are_refused_with_the_numbers(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        fleet_of(**asked)


def test_a_skew_that_leaves_a_camera_without_images_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Raise fleet\.dirichlet\.alpha"):
        fleet_of(cameras=40, label_skew="dirichlet", alpha=0.001)


@pytest.mark.parametrize("pool", ["fleet", "evaluation"])
def test_pools_that_share_an_image_are_refused(pool: str) -> None:
    data = images()
    longer: dict[str, Any] = {pool: np.append(getattr(data, pool), data.fleet[0])}
    shared = dataclasses.replace(data, **longer)
    with pytest.raises(DataError, match="holds 1 of"):
        fleet_of(shared)


def test_a_fleet_crosses_to_another_process_and_cannot_be_written_to() -> None:
    fleet = fleet_of()
    assert told(pickle.loads(pickle.dumps(fleet))) == told(fleet)  # noqa: S301  (our own bytes)
    with pytest.raises(ValueError, match="read-only"):
        fleet.cameras[0].train[0] = 1


def test_the_embedded_default_has_images_for_its_cameras() -> None:
    from fed_lorac.data.datasets import load

    config = Config()
    data = load(config.data.name, config.data.root)
    fleet = build_fleet(config.fleet, data, config.run.seed)
    assert sum(len(camera.train) for camera in fleet.cameras) == len(data.fleet)
    assert not set(np.concatenate([camera.train for camera in fleet.cameras])) & set(data.cloud)


def test_cameras_that_look_at_official_corrupted_files_share_no_image_either(real_data: Path) -> None:
    from fed_lorac.data.datasets import load

    data = load("cifar10c", real_data / "cifar10c-sample")
    fleet = build_fleet(FleetConfig(cameras=4, per_round=4), data, 0)
    shown: dict[str, list[bytes]] = {"train": [], "evaluation": []}
    for camera in fleet.cameras:
        for use, seen in shown.items():
            seen += [image.tobytes() for image in data.clean(getattr(camera, use))]
    assert len(shown["train"]) + len(shown["evaluation"]) == len(set(shown["train"]) | set(shown["evaluation"])) == 100


@given(share=st.floats(0.1, 0.9), seed=st.integers(0, 5), skew=st.sampled_from(["iid", "dirichlet"]))
@settings(max_examples=20, deadline=None)
def test_validation_images_are_a_share_of_the_cameras_own_and_no_table_s(share: float, seed: int, skew: str) -> None:
    data = images()
    plain = build_fleet(FleetConfig(cameras=2, per_round=2, label_skew=skew), data, seed)
    tuned = build_fleet(FleetConfig(cameras=2, per_round=2, label_skew=skew, validation_share=share), data, seed)
    for was, now in zip(plain.cameras, tuned.cameras, strict=True):
        assert sorted([*now.train, *now.evaluation]) == sorted(was.train)
        assert not set(now.evaluation) & set(data.evaluation)
        for label in np.unique(data.labels[was.train]):
            count = np.sum(data.labels[was.train] == label)
            assert abs(np.sum(data.labels[now.evaluation] == label) - share * count) <= 0.5 + 1e-9
        assert (now.corruption, now.severity, now.link) == (was.corruption, was.severity, was.link)


def test_validation_images_of_cameras_in_time_are_the_latest() -> None:
    own = [OwnImages(f"c{k}", np.arange(100 * k, 100 * k + 10), np.arange(100 * k + 50, 100 * k + 60)) for k in (0, 1)]
    data = dataclasses.replace(images(), cameras=tuple(own))
    fleet = build_fleet(FleetConfig(cameras=2, per_round=2, validation_share=0.3), data, 0)
    assert [camera.evaluation.tolist() for camera in fleet.cameras] == [[7, 8, 9], [107, 108, 109]]
    assert [camera.train.tolist() for camera in fleet.cameras] == [list(range(7)), list(range(100, 107))]


def test_a_validation_share_that_leaves_a_camera_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"of the 5 of camera 0 a share of 0.01 leaves 5 and 0"):
        build_fleet(FleetConfig(cameras=2, per_round=2, images=5, validation_share=0.01), images(), 0)
