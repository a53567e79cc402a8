"""How fast a core multiplies, how much an arm's training multiplies, and in which form the peers' step is fastest here.
Knows tensors and clocks; not frameworks."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import torch
from common import say, seconds_of
from torch.utils.flop_counter import FlopCounterMode

from fed_lorac.client.local_update import local_updates
from fed_lorac.client.state import ClientState, GlobalModel
from fed_lorac.experiment.experiment import Experiment
from peers.network import base_network
from peers.settings import Images, Settings
from peers.turn import train

__all__ = ["fastest_form", "fleetgrid_flops", "peak_flops", "peers_flops"]

_SIDE = 1536  # rows and columns of the product; a core's second-level cache holds none of the three


def peak_flops(precision: str, device: str = "cpu", repeats: int = 50) -> float:
    """Multiplications and additions a second in a matrix product on one thread (one GPU): the best of some tries."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(_SIDE, _SIDE, generator=torch.Generator().manual_seed(0)).to(device, dtype)

    def multiply() -> None:
        a @ a
        if device != "cpu":
            torch.cuda.synchronize()

    multiply()
    return 2 * _SIDE**3 / min(seconds_of(multiply) for _ in range(repeats))


def fleetgrid_flops(experiment: Experiment) -> float:
    """Of FleetGrid's training, per image that is trained on: counted on a camera's whole turn of the first round."""
    images = len(experiment.fleet.cameras[0].train) * experiment.config.local.epochs
    return _counted(lambda: local_updates(experiment, GlobalModel(), 1, {0: ClientState()})) / images


def peers_flops(settings: Settings) -> float:
    """Of the peers' training, per image that is trained on."""
    return _counted(_step(settings)) / settings.batch_size


def _counted(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def fastest_form(settings: Settings, precisions: Sequence[str], repeats: int = 9) -> Settings:
    """The settings, with the precision and memory format in which the peers' own step is fastest here."""
    forms = [
        replace(settings, precision=precision, channels_last=layout)
        for precision, layout in product(sorted(set(precisions)), (True, False))
    ]
    steps = [_step(form) for form in forms]
    times = [[seconds_of(step) for step in steps] for _ in range(repeats + 1)][1:]  # the first warms up
    medians = [statistics.median(one) for one in zip(*times, strict=True)]
    for form, median in zip(forms, medians, strict=True):
        say(f"the peers' step, {form.precision}, channels last {form.channels_last}: {1e3 * median:.1f} ms")
    return forms[medians.index(min(medians))]


def _step(settings: Settings) -> Callable[[], object]:
    once, generator = replace(settings, epochs=1), torch.Generator().manual_seed(0)
    model = base_network(once)
    x = torch.randn(settings.batch_size, 3, 32, 32, generator=generator).to(settings.device)
    x = x.to(memory_format=torch.channels_last if settings.channels_last else torch.contiguous_format)
    y = torch.zeros(settings.batch_size, dtype=torch.long, device=settings.device)
    return lambda: train(model, Images(x, y, x, y), once, 0.0, generator)
