"""A small network of every family goes all the way: it is trained, sent, billed, evaluated, resumed and exported."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from interrupted import Ended, check_equal
from safetensors import safe_open
from small_runs import rows, tiny

from fed_lorac.config import Config
from fed_lorac.export import export_run, load_network
from fed_lorac.reporting.sizes import sizes
from fed_lorac.reporting.watch import Watch
from fed_lorac.seeds import stream
from fed_lorac.simulation.engines import run

pytestmark = pytest.mark.slow

FAMILIES = (
    *("resnet18", "resnext50_32x4d", "densenet121", "shufflenet_v2_x0_5"),
    *("mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "efficientnet_b0", "efficientnet_v2_s", "regnet_y_400mf"),
    *("convnext_tiny", "alexnet", "vgg11", "squeezenet1_1"),
    *("timm/test_resnet", "timm/test_efficientnet", "timm/test_convnext", "timm/test_byobnet"),
    "timm/tf_mobilenetv3_small_minimal_100",  # whose convolutions pad as TensorFlow does
)
SMALL: dict[str, Any] = {
    "width": None,
    "fleet__cameras": 2,
    "fleet__per_round": 2,
    "fleet__images": 4,
    "fleet__eval_images": 2,
    "local__batch_size": 2,
    "local__lr": 0.001,
    "rank": 1,
}


def small(name: str) -> Config:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    return tiny(**SMALL, model__name=name)


@pytest.mark.filterwarnings("ignore:.*is deprecated")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_of_every_family_goes_all_the_way(name: str, tmp_path: Path) -> None:
    config, whole, again = small(name), tmp_path / "whole", tmp_path / "again"
    run(config, whole, Watch())
    with pytest.raises(KeyboardInterrupt):
        run(config, again, Ended(1))
    run(config, again, Watch(), resume=True)
    check_equal(again, whole)
    check_billed(whole, name, classes=10)
    check_exported(whole)


def check_billed(folder: Path, name: str, classes: int) -> None:
    """The frame on the wire is the one that `sizes` weighs, and both rounds were measured."""
    found = rows(folder / "rounds.jsonl")
    assert len(found) == 2 and all(row["accuracy"] is not None and row["cameras_counted"] == 2 for row in found)
    weighed = sizes(name, "lora-c", 1, classes=classes)
    sent = {row["uplink_frame_bytes"] for row in rows(folder / "cameras.jsonl")}
    assert sent == {weighed.frame_bytes}
    assert weighed.trainable_parameters < weighed.full_parameters
    with safe_open(folder / "model.safetensors", "pt") as file:  # type: ignore[no-untyped-call]
        assert file.metadata()["folded_round"] == "2"


def check_exported(folder: Path) -> None:
    """ONNX gives the logits of the network that safetensors gives."""
    images = stream(0, "photos").integers(0, 256, (3, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        wanted = load_network(export_run(folder, "safetensors").path)(torch.from_numpy(images)).numpy()
    written = export_run(folder, "onnx")
    session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    assert np.allclose(
        session.run(None, {"images": images})[0], wanted, atol=1e-4 * max(1.0, float(np.abs(wanted).max()))
    )
    assert written.metadata["input_words"] == "give RGB pixels of 0 to 255: normalization is inside"
