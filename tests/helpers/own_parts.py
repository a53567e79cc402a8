"""A package of somebody else's, as text: one part of each kind. Written where a test wants it, and found from there."""

import subprocess
import sys
from pathlib import Path

from small_runs import environment

__all__ = ["PARTS", "SOURCE", "asked_beside", "register", "settings_of_parts", "write_package"]

PARTS = {
    "adapter.method": "{}.parts:Gains",
    "strategy.name": "{}.parts:PlainMean",
    "codec.up": "{}.parts:tenths",
    "codec.down": "{}.parts:TENTHS",
    "model.name": "{}.parts:net",
    "data.name": "{}.parts:stripes",
    "fleet.corruptions": "fog, {}.parts:drizzle",
    "fleet.link": "{}.parts:PIGEON, lte-m",
}
"""Setting -> what it may be; `{}` is the package's name."""

SOURCE = '''
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import nn

from fed_lorac.adapters.conv_adapter import AdaptedConv2d, Branch, ConvAdapter
from fed_lorac.aggregation.aggregators import weighted_mean
from fed_lorac.data.dataset import Images
from fed_lorac.radio.link import Link
from fed_lorac.runtime.settings import setting
from fed_lorac.server.strategy import Proposal, Strategy
from fed_lorac.wire.codecs.codecs import Codec


class GainConv2d(AdaptedConv2d):
    def delta(self, own):
        return self.strength * own["gain"] * own["pattern"]


@dataclass(frozen=True)
class Gains(ConvAdapter):
    source = "Smith et al. 2027, arXiv 2701.00001"
    linear = True
    layer = GainConv2d
    strength: float = setting(0.5, "what each gain is multiplied by", above=0)

    def branch(self, name, conv, generator):
        pattern = torch.randn(1, *conv.weight.shape[1:], generator=generator)
        gain = torch.zeros(conv.out_channels, 1, 1, 1)
        return Branch({"gain": gain}, {"pattern": pattern}, {"strength": self.strength})


@dataclass(frozen=True)
class PlainMean(Strategy):
    source = "FedAvg, arXiv 1602.05629"
    exact = True
    share: float = 1.0

    def propose(self, server, deltas):
        mean = weighted_mean(deltas)
        return Proposal({name: self.share * total.dense() for name, total in mean.items()}, exact=mean)


def tenths(step=0.1):
    """Whole multiples of a step, which travels with the frame, as 16-bit numbers."""

    def pack(values, slot, rng):
        return np.clip(np.rint(values / np.frombuffer(slot.setup, "<f4")[0]), -32768, 32767).astype("<i2").tobytes()

    def unpack(data, slot):
        step = np.frombuffer(slot.setup, "<f4")[0]
        return (np.frombuffer(data, "<i2").astype(np.float32) * step).reshape(slot.shape)

    return Codec(
        "tenths", 200, "made up", False, inf, lambda slot: 2 * slot.count, pack, unpack,
        setup_bytes=4, setup=lambda rng, share: np.float32(step).tobytes(),
    )


TENTHS = tenths(0.001)


def net(num_classes, channels=4):
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.Conv2d(channels, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes),
    )


def stripes(root, image_size, count=300):
    labels = np.arange(count) % 3
    rng = np.random.default_rng(0)
    images = rng.integers(0, 90, (count, image_size, image_size, 3), dtype=np.uint8)
    for label in range(3):
        images[labels == label, :: label + 2] += 100
    return Images(images, labels, ("two", "three", "four"))


def drizzle(images, severity, rng, share=0.01):
    """Streaks of rain.

    Source: me, 2027.
    """
    streaks = rng.random(images.shape[:3]) < share * severity
    images[streaks] = 255
    return images


PIGEON = Link("pigeon", 0.01, 0.02, 1.0, "RFC 1149")
'''


def write_package(folder: Path, name: str, source: str = SOURCE) -> None:
    """Write the package `name` into a folder. A process keeps what it has imported: give each package its own name."""
    package = folder / name
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "parts.py").write_text(source, encoding="utf-8")


def settings_of_parts(name: str) -> dict[str, object]:
    """A small run of nothing but the package's parts, with some of their settings."""
    return {key: value.format(name) for key, value in PARTS.items()} | {
        "adapter.options.strength": 0.3,
        "codec.options.step": 0.002,
        "model.options.channels": 6,
        "model.weights": "none",
        "data.options.count": 240,
        "data.image_size": 16,
        "fleet.options.share": 0.02,
        "fleet.cameras": 4,
        "fleet.per_round": 3,
        "local.epochs": 1,
        "local.batch_size": 10,
        "run.rounds": 2,
        "run.precision": "fp32",
    }


def register(folder: Path, group: str, *points: str) -> None:
    """Leave in `folder` what an installed package leaves: its entry points."""
    info = folder / "their_parts-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-parts\nVersion: 1.0\n", encoding="utf-8")
    with (info / "entry_points.txt").open("a", encoding="utf-8") as file:
        file.write("\n".join([f"[{group}]", *points, ""]))


def asked_beside(folder: Path, script: str) -> str:
    """What a process prints and says that finds what lies in `folder` installed."""
    around = environment(PYTHONPATH=f"{environment()['PYTHONPATH']}:{folder}", COLUMNS="300")
    done = subprocess.run([sys.executable, "-c", script], env=around, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
