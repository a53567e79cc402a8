"""Laws of normalisation: its text and its numbers are one, and training is fed behind it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fed_lorac.config import Config
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.normalization import IMAGENET, NORMALIZATIONS, Normalization
from fed_lorac.seeds import stream
from fed_lorac.training.batches import Feed, augmented, to_input

RGB = st.tuples(*[st.floats(0, 1)] * 3)
STD = st.tuples(*[st.floats(0, 1, exclude_min=True)] * 3)


@given(RGB, STD)
def test_text_and_numbers_are_one(mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
    made = Normalization(mean, std)
    assert Normalization.parse(made.text) == made


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_a_known_normalisation_is_written_by_its_name(name: str) -> None:
    known = NORMALIZATIONS[name]
    assert known.text == name
    assert Normalization.parse(" / ".join(" ".join(map(str, part)) for part in (known.mean, known.std))).text == name


def test_means_of_pixels_0_to_255_and_of_shares_0_to_1_are_distinguished() -> None:
    assert Normalization.parse("127.5 / 127.5 / 255") == Normalization.parse("half")
    assert Normalization.parse("0 / 1 / 255").std == (1 / 255,) * 3
    raw = to_input(torch.full((1, 8, 8, 3), 200, dtype=torch.uint8), normalization=Normalization.parse("0 / 1 / 255"))
    assert torch.allclose(raw, torch.tensor(200.0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("imagnet", "Did you mean 'imagenet'"),
        ("125.3 123 113.9 / 63 62.1 66.7", "end in / 255"),
        ("0.5 0.5 / 0.5 0.5", "mean / deviation of red, green and blue"),
        ("0.5 / 0.5 / 1", "mean / deviation"),
        ("0.5 / 0", "its deviation above 0"),
        ("nan / 0.5", "mean / deviation"),
        ("0.5, 0.5, 0.5 / 0.5", "mean / deviation"),
        ("", "one of cifar10"),
    ],
)
def test_text_that_is_no_normalisation_is_refused_with_the_right_form(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.normalization") as raised:
        Config.from_flat({"model.weights": "none", "model.normalization": text})
    assert said in str(raised.value)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_input_is_pixels_less_mean_over_deviation(name: str) -> None:
    how, images = NORMALIZATIONS[name], photos(20)
    wanted = (images.double() / 255 - torch.tensor(how.mean).double()) / torch.tensor(how.std).double()
    assert torch.allclose(to_input(images, normalization=how).double(), wanted.permute(0, 3, 1, 2), atol=1e-5)


def photos(count: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 32, 32, 3), generator=draw, dtype=torch.uint8)


def test_training_is_fed_behind_it_and_cutouts_grey_is_its_mean() -> None:
    images, labels = photos(6), torch.arange(6)
    feed = Feed(
        [images], [labels], [stream(0, "f")], batch_size=6, augment="none", device=torch.device("cpu"), shuffled=False,
        normalization=IMAGENET,
    )  # fmt: skip
    x = feed.images([0], feed.index([0], [feed.drawn(0)]))
    assert torch.equal(x, to_input(images, normalization=IMAGENET))
    black = torch.zeros_like(images)
    holes = augmented(black, "crop_flip_cutout", stream(0, "c"), IMAGENET).flatten(0, 2).unique(dim=0)
    assert holes.tolist() == [[0, 0, 0], [124, 116, 104]]
