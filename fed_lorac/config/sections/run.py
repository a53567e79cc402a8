"""[run]: how long, on which machine, and where the record goes."""

from dataclasses import dataclass
from typing import ClassVar

from fed_lorac import registry
from fed_lorac.config import names
from fed_lorac.config.section import Section, When
from fed_lorac.registry import Kind
from fed_lorac.runtime.settings import setting
from fed_lorac.runtime.spelling import meant

__all__ = ["FleetEngine", "FlowerEngine", "RayWorkers", "RunConfig", "Sampled"]


@dataclass(frozen=True)
class Sampled:
    """What is measured where measuring everything takes too long: a sample, drawn from the seed once, the same in every
    round."""

    evaluate_cameras: int = setting(0, "cameras that are measured, drawn once for the whole run; 0: all", least=0)
    evaluate_images: int = setting(
        0, "evaluation images that each is measured on, drawn once; 0, or more than it has: all", least=0
    )


@dataclass(frozen=True)
class FlowerEngine(Sampled):
    """[run.flower]: Flower's runtime."""


@dataclass(frozen=True)
class FleetEngine(Sampled):
    """[run.fleet]: our own grid."""

    block_size: int = setting(0, "cameras that train side by side; 0: chosen by model and image size", least=0)
    checkpoint_every: int = setting(1, "rounds between checkpoints, for --resume; 0: no checkpoints", least=0)
    keep_base_scores: bool = setting(True, "keep the base's accuracies in the cache, for later runs of the same fleet")


@dataclass(frozen=True)
class ThreadWorkers:
    """Several workers that are threads of one process."""


@dataclass(frozen=True)
class RayWorkers:
    """[run.ray]: several workers that are processes, which Ray starts on this machine or on a cluster."""

    address: str = setting("", "host:port of a running cluster; empty: RAY_ADDRESS, or a Ray of this run's own")
    block_timeout_s: float = setting(
        600.0, "seconds that a worker may take to train one block of cameras before it is replaced", above=0
    )


def _several(workers: object) -> bool:
    return isinstance(number := meant(int, workers), int) and number > 1


@dataclass(frozen=True)
class RunConfig(Section):
    """How long, on what, and where the record goes."""

    section: ClassVar[str] = "run"
    choices: ClassVar = {
        "engine": Kind({"fleet": FleetEngine, "flower": FlowerEngine}),
        "pool": Kind({"ray": RayWorkers, "threads": ThreadWorkers}),
        "log": registry.LOGS,
    }
    quiet: ClassVar = ("log",)
    under: ClassVar = {"pool": When("workers", _several, "a number above 1")}
    rounds: int = setting(10, "rounds of federated averaging", least=1)
    seed: int = setting(0, "all random numbers are drawn from it: the same seed, the same run", least=0)
    workers: int = setting(1, "workers that train cameras at a time; 1: this process alone, without Ray", least=1)
    pool: str = setting(
        "ray",
        "what workers are: processes that Ray starts, here or on a cluster, and replaces when they die or hang; or "
        "threads of this process, which start at once and take less memory, up to a few",
        choices=names.POOLS,
    )
    threads: int = setting(
        1, "CPU threads of each worker; with another number the last digits of results differ", least=1, most=1024
    )
    device: str = setting("cpu", "where cameras train", choices=names.DEVICES)
    precision: str = setting(
        "auto",
        "arithmetic of training; auto: bf16 where the machine is fast at it, else fp32",
        choices=names.PRECISIONS,
    )
    engine: str = setting(
        "fleet", "what carries messages to cameras: this package, or Flower's runtime", choices=names.ENGINES
    )
    evaluate_every: int = setting(1, "rounds between evaluations; the last round is always evaluated", least=1)
    round_timeout_s: float = setting(
        3600.0, "seconds of real time after which a round goes on without the replies that are missing", above=0
    )
    out: str = setting("", "the folder that the run is written to; empty: a new one in runs")
    log: str = setting(
        "",
        "where else the run is logged as it goes: one or several of these, or your own",
        choices=registry.LOGS.names,
        listed=True,
        outside=registry.LOGS.is_outside,
    )

    @property
    def on_ray(self) -> bool:
        """Whether workers are processes that Ray starts."""
        return self.workers > 1 and self.pool == "ray"

    def outside(self) -> dict[str, str]:
        """None: a log changes no result, so that a run may go on with another."""
        return {}
