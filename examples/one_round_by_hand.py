"""One federated round by hand, without Flower and without a grid: what crosses the radio is bytes.

python examples/one_round_by_hand.py
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import fed_lorac as fl
from fed_lorac.adapters.deltas import fold
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.aggregation.delta_sum import compressed, sum_states
from fed_lorac.models.fingerprints import fingerprint, named_tensors, shapes_of

adapter = LoraC(rank=2, alpha=4.0)


def network() -> nn.Module:
    """A small CNN; every end builds the same one."""
    torch.manual_seed(0)
    convs = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU()
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(288, 10))


def images(camera: int) -> tuple[Tensor, Tensor]:
    """Scanned digits, each camera's at an exposure of its own."""
    scans, labels = load_digits(return_X_y=True)
    mine = np.arange(len(scans)) % 2 == camera
    x = torch.tensor(scans[mine] / 16 * (0.6 + 0.4 * camera), dtype=torch.float32)
    return x.view(-1, 1, 8, 8), torch.tensor(labels[mine])


def camera_turn(base: nn.Module, camera: int) -> tuple[bytes, int]:
    """Train factors on the camera's own images; the frame that goes up, and on how many images."""
    model, (x, y) = copy.deepcopy(base), images(camera)
    adapter.attach(model, torch.Generator().manual_seed(camera))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.2, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return fl.encode(adapter.read(model), dtype="fp16", base=fingerprint(named_tensors(base))), len(x)


def server_turn(base: nn.Module, replies: list[tuple[bytes, int]]) -> bytes:
    """The exact mean of what the factors' products change, weighted by images, as the frame that goes down."""
    tag, examples = fingerprint(named_tensors(base)), sum(n for _, n in replies)
    states = ((fl.decode(frame, base=tag), n / examples) for frame, n in replies)
    mean = sum_states(states, shapes_of(base), adapter.scale)
    update: dict[str, Tensor] = {}
    for name, total in mean.items():
        update |= compressed(total, name, "svd", rank=4)
    return fl.encode(update, dtype="fp16", base=tag)


def main() -> None:
    """Two cameras, one round: both fold the same update into the same base."""
    base = network()
    up = [camera_turn(base, camera) for camera in (0, 1)]
    down = server_turn(base, up)
    print(f"{[len(frame) for frame, _ in up]} bytes up, {len(down)} bytes down to each")
    for camera in (0, 1):
        model, (x, y) = network(), images(camera)
        before = F.cross_entropy(model(x), y)
        fold(model, fl.decode(down, base=fingerprint(named_tensors(model))))
        print(f"camera {camera}: loss {before:.3f} -> {F.cross_entropy(model(x), y):.3f}")


if __name__ == "__main__":
    main()
