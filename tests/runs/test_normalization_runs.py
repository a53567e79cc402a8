"""Whole runs behind a base's own normalisation, and networks exported from them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_runs import rows, tiny
from test_normalization import photos
from torch import nn

from fed_lorac.export import export_run, load_network
from fed_lorac.models import build
from fed_lorac.models.weights import read_checkpoint
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.normalization import Normalization
from fed_lorac.simulation.engines import run
from fed_lorac.training.batches import to_input


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


@pytest.mark.slow
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
