"""What a node is fit for: its versions, data, device and memory, and how they differ from the driver's. Knows this
machine and the config; not clusters.

Nothing ships code or data to a node, and whoever works must compute what the driver would. So each examines itself,
and the driver compares.
"""

import os
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from fed_lorac import __version__
from fed_lorac.config import Config
from fed_lorac.data.store import cache_folder
from fed_lorac.errors import FedLoracError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.experiment.machine import WORKER_BYTES, cpu_model, free_memory_bytes, usable_cpus
from fed_lorac.runtime.precision import resolved_device, resolved_precision
from fed_lorac.runtime.versions import version_of

__all__ = ["Facts", "complaints", "examine", "examine_driver", "remarks"]

_MUST_EQUAL = ("fed_lorac", "python", "torch", "torchvision", "flwr", "ray", "numpy")


@dataclass(frozen=True)
class Facts:
    """What an examination found. Plain values, each with a default: another version's may lack some."""

    node: str = ""  # its name, as a person would look for it
    fed_lorac: str = ""
    python: str = ""
    torch: str = ""
    torchvision: str = ""
    flwr: str = ""
    ray: str = ""
    numpy: str = ""
    cpu: str = ""
    cpus: int = 0
    threads: int = 0  # of one worker
    device: str = ""  # where cameras would train: cpu or cuda
    precision: str = ""
    free_memory_bytes: int = 0
    data: str = ""  # fingerprints; empty where there is `failure`
    base: str = ""
    base_notes: str = ""  # what was done to its file to take it, a line each
    cache: str = ""
    cache_writable: bool = False
    failure: str = ""  # why it cannot train: no such device, no data, or the node could not be asked

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The facts among these values, whatever else another version has sent."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})


def examine(config: Config, node: str = "") -> Facts:
    """Examine this machine for a config, opening data and base as a worker does; what fails is in `failure`."""
    free = free_memory_bytes()  # before data and base are opened
    device = precision = data = base = notes = failure = ""
    try:
        device = resolved_device(config.run.device)
        precision = resolved_precision(config.run.precision, device)
        experiment = build_experiment(config)
        data, base, notes = experiment.data.fingerprint, experiment.base.fingerprint, "\n".join(experiment.base.notes)
    except FedLoracError as error:
        failure = f"{type(error).__name__}: {error}"
    cache = cache_folder()
    return Facts(
        node=node or socket.gethostname(),
        fed_lorac=__version__,
        python=platform.python_version(),
        **{name: version_of(name) for name in ("torch", "torchvision", "flwr", "ray", "numpy")},
        cpu=cpu_model(),
        cpus=usable_cpus(),
        threads=config.run.threads,
        device=device,
        precision=precision,
        free_memory_bytes=free,
        data=data,
        base=base,
        base_notes=notes,
        cache=str(cache),
        cache_writable=_writable(cache),
        failure=failure,
    )


def examine_driver(config: Config) -> Facts:
    """Examine this machine as the one that drives the run."""
    return examine(config, f"{socket.gethostname()} (driver)")


def complaints(driver: Facts, node: Facts, workers: int = 1) -> list[str]:
    """Why a node must not take part, each naming it; none where it may. `workers`: how many it is to carry."""
    if node.failure:
        return [f"Node {node.node}: {node.failure}"]
    found = [
        f"Node {node.node} must have the driver's {name}: it has {getattr(node, name) or 'none'}, the driver "
        f"{getattr(driver, name)}. Install the same version."
        for name in _MUST_EQUAL
        if _release(name, node) != _release(name, driver)
    ]
    for what, here, there in (("images", driver.data, node.data), ("base network", driver.base, node.base)):
        if here and here != there:
            found.append(
                f"Node {node.node} must have the driver's {what}: its fingerprint is {there[:12]}, the driver's "
                f"{here[:12]}. Copy the driver's files to it."
            )
    return [*found, *_means(driver, node, workers)]


def _means(driver: Facts, node: Facts, workers: int) -> list[str]:
    found = []
    if node.device != driver.device:
        found.append(
            f"Node {node.node} must train where the driver would: it has {node.device}, the driver {driver.device}. "
            "Set run.device, which is the same for all."
        )
    if node.free_memory_bytes < (need := workers * WORKER_BYTES):
        found.append(
            f"Node {node.node} must have 1 GiB free for each worker: it has {node.free_memory_bytes / 2**30:.1f} GiB "
            f"for {need >> 30}. Lower run.workers, or free some."
        )
    if not node.cache_writable:
        found.append(f"Node {node.node} must be able to write its cache {node.cache}. Set FED_LORAC_CACHE there.")
    return found


def remarks(driver: Facts, node: Facts) -> list[str]:
    """What lets a node take part, but may give results that differ from the driver's."""
    found: list[str] = []
    if node.failure:
        return found
    if node.precision != driver.precision:
        found.append(
            f"Node {node.node} trains in {node.precision}, the driver in {driver.precision}: results will depend on "
            "who trains which camera. Set run.precision."
        )
    if node.cpu != driver.cpu:
        found.append(
            f"Node {node.node} has another CPU ({node.cpu}) than the driver ({driver.cpu}): results may differ in "
            "their last bits."
        )
    return found


def _release(name: str, facts: Facts) -> str:
    """A version as far as it matters: of Python, the minor one."""
    text: str = getattr(facts, name)
    return text.rpartition(".")[0] if name == "python" else text


def _writable(folder: Path) -> bool:
    """Whether a folder, or the nearest that exists above it, can be written."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    return os.access(there, os.W_OK | os.X_OK)
