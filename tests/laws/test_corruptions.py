"""Laws of the corruptions: of a batch, and of each building block by a second route."""

import colorsys
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fed_lorac.data.corruptions import CORRUPTIONS, _geometry, _liquid, corrupt, frost_textures
from fed_lorac.data.corruptions._motion import motion_blur
from fed_lorac.data.corruptions._plasma import plasma
from fed_lorac.errors import ConfigError, DataError
from fed_lorac.seeds import stream

EXACT = ["brightness", "contrast", "defocus_blur", "gaussian_blur"]
EXACT += ["jpeg_compression", "pixelate", "saturate", "zoom_blur"]
RANDOM = [name for name in CORRUPTIONS if name not in EXACT]
SEVERITIES = (1, 2, 3, 4, 5)


def scenes(count: int, height: int = 32, width: int = 32) -> np.ndarray:
    """Smooth, colourful, of full contrast: made here, from no camera."""
    noise = stream(7, "scenes", height, width).standard_normal((count, height, width, 3))
    smooth = ndimage.gaussian_filter(noise, (0, 2, 2, 0), mode="wrap")
    return np.asarray(np.clip(128 + 60 * smooth / smooth.std(), 0, 255), dtype=np.uint8)


# One batch ------------------------------------------------------------------------------------------------------------


def test_the_registry_holds_the_nineteen_of_cifar_10_c() -> None:
    assert len(CORRUPTIONS) == 19 and len(RANDOM) == 11


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(32, 32), (8, 8), (16, 40), (64, 48)])
def test_any_size_that_is_a_multiple_of_8_keeps_its_shape_and_is_changed(name: str, shape: tuple[int, int]) -> None:
    images = scenes(3, *shape)
    before = images.copy()
    for severity in SEVERITIES:
        out = corrupt(images, name, severity, stream(0))
        assert out.shape == images.shape and out.dtype == np.uint8
    assert (out != images).any() and not np.shares_memory(out, images)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_stream_gives_the_same_bytes(name: str) -> None:
    images = scenes(5)
    first, second, other = (corrupt(images, name, 3, stream(*key)) for key in ((0, "a"), (0, "a"), (0, "b")))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any() == (name in RANDOM)


@pytest.mark.parametrize("name", RANDOM)
def test_each_image_has_randomness_of_its_own(name: str) -> None:
    same = np.repeat(scenes(1), 4, axis=0)
    out = corrupt(same, name, 5, stream(1))
    assert len(np.unique(out.reshape(4, -1), axis=0)) == 4


@pytest.mark.parametrize("name", EXACT)
def test_a_batch_beyond_one_chunk_is_its_images_one_by_one(name: str) -> None:
    images = scenes(130)
    out = corrupt(images, name, 2, stream(0))
    for index in (0, 127, 128, 129):
        np.testing.assert_array_equal(out[index], corrupt(images[index : index + 1], name, 2, stream(0))[0])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_no_images_give_no_images(name: str) -> None:
    assert corrupt(scenes(1)[:0], name, 1, stream(0)).shape == (0, 32, 32, 3)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_plain_images_are_no_trouble(name: str, grey: int) -> None:
    plain = np.full((3, 32, 32, 3), grey, dtype=np.uint8)
    with np.errstate(all="raise", under="ignore"):
        for severity in SEVERITIES:
            corrupt(plain, name, severity, stream(0))


def test_a_read_only_strided_view_is_as_good_as_a_copy() -> None:
    images = scenes(6)
    view = images[::2, :, ::-1]
    view.flags.writeable = False
    np.testing.assert_array_equal(corrupt(view, "fog", 3, stream(0)), corrupt(view.copy(), "fog", 3, stream(0)))


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'gausian_noise'.*'gaussian_noise'"):
        corrupt(scenes(1), "gausian_noise", 1, stream(0))


@pytest.mark.parametrize("severity", [0, 6, -1, 2.5, True, "3", None])
def test_a_severity_that_is_not_1_to_5_is_refused(severity: object) -> None:
    with pytest.raises(ConfigError, match="from 1 to 5"):
        corrupt(scenes(1), "fog", severity, stream(0))  # type: ignore[arg-type]


def test_randomness_from_anything_but_a_generator_is_refused() -> None:
    with pytest.raises(ConfigError, match="Generator"):
        corrupt(scenes(1), "fog", 1, 42)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "law"),
    [
        (np.zeros((1, 32, 32, 3), np.float32), "uint8"),
        ([[1]], "uint8"),
        (np.zeros((32, 32, 3), np.uint8), "shape"),
        (np.zeros((1, 3, 32, 32), np.uint8), "shape"),
        (np.zeros((1, 30, 32, 3), np.uint8), "multiples of 8"),
        (np.zeros((1, 0, 32, 3), np.uint8), "multiples of 8"),
    ],
)
def test_images_of_the_wrong_kind_are_refused(images: np.ndarray, law: str) -> None:
    with pytest.raises(DataError, match=law):
        corrupt(images, "fog", 1, stream(0))


# Building blocks, by a second route -----------------------------------------------------------------------------------


@given(sigma=st.floats(0.1, 3), mode=st.sampled_from(["nearest", "reflect", "mirror"]))
@settings(max_examples=20, deadline=None)
def test_blurring_by_matrices_is_scipys_gaussian_filter(sigma: float, mode: str) -> None:
    plane = stream(1).random((16, 24), dtype=np.float32)
    np.testing.assert_allclose(
        _geometry.blur(plane[None], sigma, mode)[0], ndimage.gaussian_filter(plane, sigma, mode=mode), atol=1e-5
    )


@given(factor=st.floats(1, 3))
@settings(max_examples=20, deadline=None)
def test_zooming_by_matrices_is_scipys_zoom_of_the_middle(factor: float) -> None:
    plane = stream(2).random((32, 32), dtype=np.float32)
    kept = int(np.ceil(32 / factor))
    start = (32 - kept) // 2
    zoomed = ndimage.zoom(plane[start : start + kept, start : start + kept], factor, order=1)
    trim_fraction = (len(zoomed) - 32) // 2
    operator = _geometry.zoom_operator(32, factor)
    ours = _geometry.separable(plane[None], operator, operator)[0]
    np.testing.assert_allclose(
        ours, zoomed[trim_fraction : trim_fraction + 32, trim_fraction : trim_fraction + 32], atol=1e-5
    )


def test_a_filter_of_any_rank_is_the_sum_of_its_separable_parts() -> None:
    plane, kernel = stream(3).random((16, 24)), stream(4).standard_normal((5, 5))
    pairs = _geometry.filter_operators(kernel, 16, 24)
    ours = np.sum([_geometry.separable(plane[None].astype(np.float32), *pair) for pair in pairs], axis=0)[0]
    np.testing.assert_allclose(ours, ndimage.correlate(plane, kernel, mode="mirror"), atol=1e-4)


@pytest.mark.parametrize(("ours", "scipys"), [("reflect", "mirror"), ("symmetric", "reflect")])
def test_reading_between_pixels_is_scipys_map_coordinates(ours: str, scipys: str) -> None:
    plane = stream(5).random((16, 24), dtype=np.float32)
    y, x = stream(6).uniform(-12, 36, (2, 1, 16, 24)).astype(np.float32)
    read = _geometry.bilinear(plane[None, :, :, None], y, x, ours)[0, :, :, 0]
    np.testing.assert_allclose(read, ndimage.map_coordinates(plane, [y[0], x[0]], order=1, mode=scipys), atol=1e-4)


@given(angle_deg=st.floats(-180, 180))
@settings(max_examples=20, deadline=None)
def test_motion_blur_is_correlation_with_a_line_of_pixels(angle_deg: float) -> None:
    plane = stream(8).integers(0, 256, (32, 32)).astype(np.float64)
    step = np.arange(13)
    weights = np.exp(-(step**2) / 8)
    kernel = np.zeros((25, 25))
    angle = np.deg2rad(angle_deg)
    places = [np.ceil(step * turn - 0.5).astype(int) + 12 for turn in (np.sin(angle), np.cos(angle))]
    np.add.at(kernel, tuple(places), weights / weights.sum())
    ours = motion_blur(plane[None, None].astype(np.float32), 6, 2.0, np.array([angle_deg]))[0, 0]
    error = ndimage.correlate(plane, kernel, mode="nearest") - ours
    assert error.min() > -0.02 and error.max() < 1.02  # truncated


def test_chamfer_is_the_cheapest_walk_of_straight_diagonal_and_knights_steps() -> None:
    edges = stream(9).random((4, 16, 24)) < 0.02
    edges[0] = False
    edges[0, 3, 5] = True
    y, x = np.mgrid[:16, :24]
    for plane, ours in zip(edges, _liquid.chamfer(edges), strict=True):
        spots = np.argwhere(plane)
        dy, dx = np.abs(y[..., None] - spots[:, 0]), np.abs(x[..., None] - spots[:, 1])
        near, far = np.minimum(dy, dx), np.maximum(dy, dx)
        flat = (far - 2 * near) + 2.1969 * near
        steep = 1.4 * (2 * near - far) + 2.1969 * (far - near)
        walk = np.where(2 * near <= far, flat, steep)
        np.testing.assert_allclose(ours, walk.min(axis=2, initial=np.inf), rtol=1e-5)


def test_a_plane_without_edges_is_far_from_any() -> None:
    assert (_liquid.chamfer(np.zeros((2, 8, 8), dtype=bool)) >= 20).all()


def test_the_edges_of_a_bright_square_are_its_closed_outline() -> None:
    plane = np.zeros((2, 16, 16), dtype=np.int32)
    plane[0, 4:12, 5:11] = 200
    edges = _liquid.canny(plane, 50, 150)
    labels, outlines = ndimage.label(edges[0], np.ones((3, 3)))
    enclosed = ndimage.binary_fill_holes(labels > 0) & ~edges[0]
    assert outlines == 1 and enclosed[6:10, 7:9].all() and not edges[1].any()


def test_a_weak_edge_counts_only_beside_a_strong_one() -> None:
    step = np.zeros((2, 16, 16), dtype=np.int32)
    step[:, :, 8:] = 30  # a gradient of 120: between the thresholds
    step[1, :4, 8:] = 100
    edges = _liquid.canny(step, 50, 150)
    assert not edges[0].any() and edges[1, 8:].any()


def test_equalised_values_are_spread_by_rank() -> None:
    planes = stream(10).integers(3, 9, (3, 16, 16)).astype(np.int32)
    planes[2] = 5
    for plane, ours in zip(planes[:2], _liquid.equalize(planes, 21), strict=False):
        rank = np.searchsorted(np.sort(plane.ravel()), plane, side="right") - (plane == plane.min()).sum()
        np.testing.assert_array_equal(ours, np.rint(rank * 255 / (256 - (plane == plane.min()).sum())))
    assert (_liquid.equalize(planes, 21)[2] == 5).all()


def test_plasma_spans_0_to_1_and_clouds_differ() -> None:
    clouds = plasma(3, 32, 2.0, stream(11))
    np.testing.assert_array_equal(clouds.min(axis=(1, 2)), 0)
    np.testing.assert_array_equal(clouds.max(axis=(1, 2)), 1)
    assert np.abs(clouds[0] - clouds[1]).mean() > 0.05


@pytest.mark.parametrize(("name", "severity"), [("brightness", 1), ("brightness", 5), ("saturate", 2), ("saturate", 5)])
def test_brightness_and_saturation_are_pythons_own_hsv(name: str, severity: int) -> None:
    images = scenes(1, 16, 16)
    images[0, :2] = images[0, :2, :, :1]  # greys, and black and white among them
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    ours = corrupt(images, name, severity, stream(0)).reshape(-1, 3)
    for pixel, out in zip(images.reshape(-1, 3) / 255, ours, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        if name == "brightness":
            value = min(value + (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1], 1)
        else:
            factor, added = {2: (0.1, 0.0), 5: (2.5, 0.2)}[severity]
            saturation = min(saturation * factor + added, 1)
        np.testing.assert_allclose(out, 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value)) - 0.5, atol=0.51)


def test_glass_at_severity_1_only_moves_pixels_from_above_and_left() -> None:
    images = scenes(4)
    out = corrupt(images, "glass_blur", 1, stream(0)).astype(int)
    sources = np.stack([np.roll(images, shift, axis=(1, 2)) for shift in ((0, 0), (0, 1), (1, 0), (1, 1))])
    matches = (np.abs(out - sources) <= 1).all(axis=-1)
    assert matches.any(axis=0)[:, 2:, 2:].all() and matches[0, :, :2].all() and matches[0, :, :, :2].all()
    assert all(0.2 < share < 0.5 for share in matches.mean(axis=(1, 2, 3)))


# Frost's textures -----------------------------------------------------------------------------------------------------


def test_without_the_package_frost_says_stand_in_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    assert frost_textures() == "stand-in"
    out = corrupt(scenes(8), "frost", 5, stream(0))
    assert out.mean() > scenes(8).mean() and (out == corrupt(scenes(8), "frost", 5, stream(0))).all()


def test_an_image_larger_than_the_textures_gets_enlarged_ones() -> None:
    assert corrupt(scenes(2, 256, 128), "frost", 3, stream(0)).shape == (2, 256, 128, 3)
