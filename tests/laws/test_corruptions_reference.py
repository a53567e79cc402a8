"""Laws of the corruptions on CIFAR-10-C's own images (under FED_LORAC_DATA), and of frost's real textures."""

from pathlib import Path

import numpy as np
import pytest

from fed_lorac.data.corruptions import CORRUPTIONS, _textures, corrupt, frost_textures
from fed_lorac.data.corruptions._motion import motion_blur
from fed_lorac.seeds import stream

EXACT = ["brightness", "contrast", "defocus_blur", "gaussian_blur"]
EXACT += ["jpeg_compression", "pixelate", "saturate", "zoom_blur"]
RANDOM = [name for name in CORRUPTIONS if name not in EXACT]
SEVERITIES = (1, 2, 3, 4, 5)
DRAWS = 8


@pytest.fixture
def real_frost() -> None:
    if frost_textures() != "imagecorruptions":
        pytest.skip("the package imagecorruptions is not installed: frost has only its stand-in textures")


@pytest.mark.usefixtures("real_frost")
def test_stand_ins_have_the_real_textures_sizes_and_colours() -> None:
    for index, real in enumerate(_textures.textures_for(8, 8)):
        made = _textures._stand_in(index)
        assert made.shape == real.shape
        np.testing.assert_allclose(made.mean(axis=(0, 1)), real.mean(axis=(0, 1)), atol=8)


def sample(real_data: Path, name: str) -> np.ndarray:
    return np.asarray(np.load(real_data / "cifar10c-sample" / f"{name}.npy", allow_pickle=False))


@pytest.mark.parametrize("name", EXACT)
def test_what_draws_nothing_is_cifar_10_c_within_two_grey_levels(real_data: Path, name: str) -> None:
    clean, theirs = sample(real_data, "_clean"), sample(real_data, name).reshape(5, 100, 32, 32, 3)
    for severity in SEVERITIES:
        ours = corrupt(clean, name, severity, stream(0)).astype(int)
        assert (np.abs(ours - theirs[severity - 1]) <= 2).mean() >= 0.99, severity


def measures(images: np.ndarray, clean: np.ndarray) -> dict[str, np.ndarray]:
    """Per image: mean, spread, energy below 1/8 and above 1/4 cycle a pixel, mean distance from the clean image."""
    levels = images.astype(np.float64)
    grey = levels.mean(axis=3)
    energy = np.abs(np.fft.fft2(grey - grey.mean(axis=(1, 2), keepdims=True))) ** 2
    frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32))
    return {
        "mean": levels.mean(axis=(1, 2, 3)),
        "spread": levels.std(axis=(1, 2, 3)),
        "low": energy[:, frequency < 1 / 8].sum(axis=1),
        "high": energy[:, frequency >= 1 / 4].sum(axis=1),
        "distance": np.abs(levels - clean).mean(axis=(1, 2, 3)),
    }


@pytest.mark.parametrize("name", RANDOM)
def test_what_is_random_is_cifar_10_c_in_distribution(
    real_data: Path, name: str, request: pytest.FixtureRequest
) -> None:
    if name == "frost":
        request.getfixturevalue("real_frost")
    clean, theirs = sample(real_data, "_clean"), sample(real_data, name).reshape(5, 100, 32, 32, 3)
    for severity in SEVERITIES:
        wanted = measures(theirs[severity - 1], clean)
        draws = [measures(corrupt(clean, name, severity, stream(2, name, k)), clean) for k in range(DRAWS)]
        for measure, values in wanted.items():
            error = np.mean([draw[measure] for draw in draws], axis=0) - values
            standard_error = error.std(ddof=1) / np.sqrt(len(error))
            assert abs(error.mean()) <= max(0.05 * values.mean(), 3 * standard_error), (severity, measure)


def test_every_motion_blur_of_cifar_10_c_is_ours_at_some_angle(real_data: Path) -> None:
    clean, theirs = sample(real_data, "_clean"), sample(real_data, "motion_blur").reshape(5, 100, 32, 32, 3)
    angles_deg = np.arange(-45, 45.1, 0.5)
    for image in range(5):
        planes = np.repeat(clean[image].transpose(2, 0, 1)[None].astype(np.float32), len(angles_deg), axis=0)
        ours = motion_blur(planes, 9, 2.5, angles_deg).transpose(0, 2, 3, 1)
        assert (np.abs(ours - theirs[4, image]) > 1).mean(axis=(1, 2, 3)).min() < 0.01


def nearest_frost(clean: np.ndarray, theirs: np.ndarray, share: float, ice: float) -> int:
    """The largest error, in grey levels, of the one place in the textures that explains `theirs` best."""
    errors = []
    for texture in _textures.textures_for(32, 32):
        pieces = np.lib.stride_tricks.sliding_window_view(texture, (32, 32), axis=(0, 1))
        probes = np.clip(share * clean[::8, ::8, 1] + ice * pieces[:, :, 1, ::8, ::8], 0, 255) - theirs[::8, ::8, 1]
        best = np.unravel_index(np.abs(probes).sum(axis=(2, 3)).argmin(), probes.shape[:2])
        whole = np.clip(share * clean + ice * pieces[best].transpose(1, 2, 0), 0, 255)
        errors.append(int(np.abs(np.floor(whole + 1e-6) - theirs).max()))
    return min(errors)


@pytest.mark.usefixtures("real_frost")
def test_every_frost_of_cifar_10_c_is_ours_at_some_place(real_data: Path) -> None:
    clean, theirs = sample(real_data, "_clean"), sample(real_data, "frost").reshape(5, 100, 32, 32, 3)
    shares = ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
    for frosted, (share, ice) in zip(theirs, shares, strict=True):
        errors = [nearest_frost(clean[k].astype(float), frosted[k].astype(float), share, ice) for k in range(6)]
        assert max(errors) <= 1, (share, ice)
