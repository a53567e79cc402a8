"""Laws of normalisation: its text and its numbers are one, and a whole run works behind the base's own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from small_runs import rows, tiny
from torch import nn

from fed_lorac.config import Config
from fed_lorac.errors import ConfigError
from fed_lorac.export import export_run, load_network
from fed_lorac.models import build
from fed_lorac.models.weights import read_checkpoint
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.normalization import IMAGENET, NORMALIZATIONS, Normalization
from fed_lorac.seeds import stream
from fed_lorac.simulation.engines import run
from fed_lorac.training.batches import Feed, augmented, to_input

RGB = st.tuples(*[st.floats(0, 1)] * 3)
STD = st.tuples(*[st.floats(0, 1, exclude_min=True)] * 3)


@given(RGB, STD)
def test_text_and_numbers_are_one(mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
    made = Normalization(mean, std)
    assert Normalization.parse(made.text) == made


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_a_known_one_is_told_by_its_name(name: str) -> None:
    known = NORMALIZATIONS[name]
    assert known.text == name
    assert Normalization.parse(" / ".join(" ".join(map(str, part)) for part in (known.mean, known.std))).text == name


def test_numbers_of_pixels_and_of_shares_are_told_apart() -> None:
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
def test_what_is_no_normalisation_is_refused_with_its_form(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.normalization") as raised:
        Config.from_flat({"model.normalization": text})
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


def base_file(path: Path, model: nn.Module, **said: str) -> str:
    """A checkpoint of another program, which says what it is asked to."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path, said)
    return str(path)


def bases(folder: Path) -> tuple[str, str]:
    """Two bases that are one network: the second takes inputs twice as large through a first layer half as large."""
    model: Any = build("resnet8", width=4)
    classes = json.dumps([str(digit) for digit in range(10)])
    one = base_file(folder / "one.safetensors", model, classes=classes, normalization="unit")
    model.conv1.weight.data /= 2
    return one, base_file(folder / "other.safetensors", model, classes=classes, normalization="0 / 0.5")


RUNS: dict[str, dict[str, Any]] = {
    "lora-c": {},
    "fixed": {"training_statistics": "fixed", "block_size": 1},
    "zero-byte": {"strategy__name": "zero-byte"},
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_whole_run_is_behind_the_bases_own(kind: str, tmp_path: Path) -> None:
    """Scaling by two is exact, so two bases that differ in nothing else give the same run, to the last bit."""
    found, summaries = list[Any](), list[Any]()
    for name, path in zip(("one", "other"), bases(tmp_path), strict=True):
        config = tiny(model__weights=path, train_first_conv="false", **RUNS[kind])
        run(config, tmp_path / name, Watch())
        summaries.append(json.loads((tmp_path / name / "summary.json").read_text()))
        found.append(rows(tmp_path / name / "cameras.jsonl", "seconds"))
    assert found[0] == found[1]
    for arm in ("source", "zero_byte", "adapted"):
        assert summaries[0][f"{arm}_accuracy"] == summaries[1][f"{arm}_accuracy"]
    assert [s["base"]["normalization"] for s in summaries] == ["unit", "0.0 0.0 0.0 / 0.5 0.5 0.5"]
    for name, text in (("one", "unit"), ("other", "0.0 0.0 0.0 / 0.5 0.5 0.5")):
        assert read_checkpoint(tmp_path / name / "model.safetensors").metadata["normalization"] == text


@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_an_exported_network_is_behind_it_too(tmp_path: Path) -> None:
    run(tiny(model__weights=bases(tmp_path)[1], run__rounds=1), tmp_path / "run", Watch())
    x, own = photos(3), Normalization.parse("0 / 0.5")
    network = load_network(export_run(tmp_path / "run", "safetensors").path)
    script = torch.jit.load(export_run(tmp_path / "run", "torchscript").path)
    pixels = x.permute(0, 3, 1, 2).float().contiguous()
    with torch.no_grad():
        wanted = network.network(to_input(x, normalization=own))
        for found in (network(pixels), script(pixels)):
            assert torch.allclose(found, wanted, atol=1e-5)
    for kind, inside in (("safetensors", False), ("torchscript", True)):
        said = export_run(tmp_path / "run", kind).metadata
        assert (json.loads(said["input_mean"]), json.loads(said["input_std"])) == ([0.0] * 3, [127.5] * 3)
        assert said["normalization"] == own.text
        assert ("normalization is inside" in said["input_words"]) == inside
