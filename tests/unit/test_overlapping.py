"""Laws of fleets whose cameras share images: each draws its own, none twice; the two pools share none."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fleet import fleet_of, images, skew_of, told

from fed_lorac.config import Config, load_config
from fed_lorac.data.dataset import OwnImages
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.build import build_experiment

OVERLAPPING: dict[str, Any] = {"deal": "overlapping", "images": 40, "eval_images": 20}
ASKED = ["fleet.deal=overlapping", "fleet.images=40", "fleet.eval_images=20"]


@settings(max_examples=25, deadline=None)
@given(
    each=st.integers(1, 400),
    eval_each=st.integers(1, 200),
    seed=st.integers(0, 2**63 - 1),
    skew=st.sampled_from(["iid", "dirichlet"]),
    alpha=st.floats(0.001, 100),
)
def test_a_camera_has_no_image_twice_and_is_measured_on_none_that_any_camera_adapts_on(
    each: int, eval_each: int, seed: int, skew: str, alpha: float
) -> None:
    data = images()
    asked: dict[str, Any] = {"images": each, "eval_images": eval_each, "label_skew": skew, "alpha": alpha}
    fleet = fleet_of(data, seed, cameras=5, deal="overlapping", **asked)
    for camera in fleet.cameras:
        assert len(set(camera.train)) == each and len(set(camera.evaluation)) == eval_each
        assert list(camera.train) == sorted(camera.train)
        assert set(camera.train) <= set(data.fleet) and set(camera.evaluation) <= set(data.evaluation)
        assert sum(camera.label_mix.values()) == pytest.approx(1)


def test_a_fleet_may_be_larger_than_its_images_and_its_first_cameras_stay() -> None:
    large = fleet_of(cameras=1_000_000, per_round=100, **OVERLAPPING)
    assert len(large.cameras) == 1_000_000 and large.cameras[-1].id == 999_999
    small = fleet_of(cameras=9, **OVERLAPPING)
    assert told(small) == told(fleet_of(cameras=10, **OVERLAPPING))[:9]
    for mine, its in zip(small.cameras, large.cameras[:9], strict=True):
        assert np.array_equal(mine.train, its.train) and np.array_equal(mine.evaluation, its.evaluation)
    assert len({camera.train.tobytes() for camera in large.cameras[:50]}) == 50


def test_every_image_is_drawn_as_often_as_any_other() -> None:
    fleet = fleet_of(images(90, 3), cameras=2000, deal="overlapping", images=6, eval_images=3)
    counts = np.bincount(np.concatenate([camera.train for camera in fleet.cameras]), minlength=90)
    spread = np.sqrt(2000 * 0.1 * 0.9)
    assert np.all(np.abs(counts[np.arange(90) % 3 < 2] - 200) < 4.5 * spread)


def test_a_smaller_alpha_skews_the_labels_of_cameras_that_share_images_too() -> None:
    asked: dict[str, Any] = {"cameras": 40, "deal": "overlapping", "images": 60, "eval_images": 20}
    data = images(6000, 10)
    skews = [skew_of(fleet_of(data, label_skew="dirichlet", alpha=alpha, **asked)) for alpha in (0.1, 1.0, 100.0)]
    assert skews[0] > 0.5 > skews[1] > 0.2 > skews[2]
    iid, skewed = fleet_of(data, **asked), fleet_of(data, label_skew="dirichlet", **asked)
    for a, b in zip(iid.cameras, skewed.cameras, strict=True):
        assert np.array_equal(a.evaluation, b.evaluation)


@pytest.mark.parametrize("corruptions", ["fog, snow, frost", "none, fog", "none"])
def test_what_weathers_there_are_is_known_from_one_period(corruptions: str) -> None:
    fleet = fleet_of(cameras=40, corruptions=corruptions, severities="3, 5", **OVERLAPPING)
    everyone = list(fleet.cameras)
    assert fleet.own_corruptions == tuple(dict.fromkeys(camera.corruption for camera in everyone))
    assert fleet.sees_clear == any(camera.severity == 0 for camera in everyone)
    assert fleet.most_images == max(len(camera.train) for camera in everyone)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (["fleet.deal=overlapping"], r"fleet\.deal has no meaning under fleet\.images = 0"),
        (ASKED[:2], r"each draw so many; got .* fleet\.eval_images = 0\. Set fleet\.eval_images"),
        ([*ASKED, "fleet.validation_share=0.2"], r"no camera's to train on; .*validation_share = 0\.2"),
        ([*ASKED, "data.name=traffic-signs"], r"have those that they took; .*traffic-signs"),
        ([*ASKED, "fleet.stream=time"], r"time order only if"),
    ],
)
def test_what_does_not_go_with_shared_images_is_refused_at_the_start(asked: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load_config(None, asked)


def test_a_data_set_with_cameras_of_its_own_and_too_few_images_are_refused() -> None:
    own = OwnImages("c", np.arange(10), np.arange(50, 60))
    with pytest.raises(ConfigError, match="those that they took; stub"):
        fleet_of(dataclasses.replace(images(), cameras=(own,)), cameras=1, **OVERLAPPING)
    with pytest.raises(ConfigError, match=r"no image twice.*fleet\.images = 401.*holds 400\. Set .* to 400 or fewer"):
        fleet_of(cameras=1, **OVERLAPPING | {"images": 401})


def test_two_cameras_see_an_image_that_they_share_each_in_noise_of_its_own() -> None:
    asked = ["fleet.images=300", "fleet.corruptions=gaussian_noise", "fleet.severities=3", "model.weights=none"]
    experiment = build_experiment(load_config(None, [*ASKED, *asked]))
    mine, its = (experiment.fleet.cameras[k] for k in (0, 1))
    shared = np.intersect1d(mine.train, its.train)
    assert len(shared)
    seen = [
        experiment.images(one.id, experiment.fleet.weather(one.id, 1)).train[np.searchsorted(one.train, shared)]
        for one in (mine, its)
    ]
    assert not np.array_equal(*seen)


def test_no_default_says_that_images_are_shared() -> None:
    assert Config().fleet.deal == "disjoint" and not fleet_of(cameras=2).overlapping
