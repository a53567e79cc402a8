"""The doctor's round: every node of the cluster examined, and compared with the driver. Knows Ray's nodes and
facts; not executors or runs."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fed_lorac.config import Config
from fed_lorac.errors import RunError, last_line
from fed_lorac.experiment.doctor import Facts, complaints, examine_driver, remarks
from fed_lorac.experiment.machine import check_workers

__all__ = ["Checkup", "checkup", "examine_cluster"]

_NODE_S = 600.0  # a node's first look at a data set decodes every image

Flat = Mapping[str, Any]


@dataclass(frozen=True)
class Checkup:
    """What the doctor found: facts of the driver and each node, why a run would be refused, and what else to know."""

    driver: Facts
    nodes: tuple[Facts, ...]
    complaints: tuple[str, ...]
    remarks: tuple[str, ...]


def checkup(config: Config) -> Checkup:
    """Examine this machine, and every node where the config's run would have workers.

    A cluster that cannot be joined, or that has no room for the workers, is a complaint.
    """
    driver, nodes, no_cluster = examine_driver(config), list[Facts](), list[str]()
    try:
        nodes = examine_cluster(config)
    except RunError as error:
        no_cluster = [str(error)] if str(error) not in driver.failure else []
    each = math.ceil(config.run.workers / max(1, len(nodes)))
    # The driver needs data, base and memory too, but nobody else's versions.
    wrong = [
        complaint
        for facts, workers in ((driver, 1), *((node, each) for node in nodes))
        for complaint in complaints(driver, facts, workers)
    ]
    known = [f"Base {config.model.weights}: {note}." for note in driver.base_notes.splitlines()]
    known += [text for node in nodes for text in remarks(driver, node)]
    return Checkup(driver, tuple(nodes), (*wrong, *no_cluster), tuple(known))


def examine_cluster(config: Config, node_s: float = _NODE_S) -> list[Facts]:
    """The facts of every node that is up, by address; none where all cameras train in the driver's own process.

    A node that cannot say anything, because the package is not there or it does not answer in `node_s` seconds, has
    that for its `failure`.

    Raises:
        RunError: the cluster cannot be joined, or has no room for the workers.
    """
    if not config.run.on_ray:
        check_workers(config.run)
        return []
    # Ray takes seconds to import, and a machine on its own needs none of it.
    from fed_lorac.grid.ray.cluster import check_room, joined  # noqa: PLC0415

    with joined(config.run) as share:
        check_room(share, config.run.workers)
        return _ask_all(config.to_flat(), on_gpus=bool(share["num_gpus"]), deadline=time.monotonic() + node_s)


def _ask_all(flat: Flat, *, on_gpus: bool, deadline: float) -> list[Facts]:
    import ray  # noqa: PLC0415
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    from fed_lorac.grid.ray.cluster import alive_nodes  # noqa: PLC0415

    ask, asked = ray.remote(_travelling()), {}
    for node in sorted(alive_nodes(), key=lambda node: (node["NodeManagerAddress"], node["NodeID"])):
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        # No CPU is asked for: a node is examined even while others use it. A GPU must be asked for to be seen.
        gpus = 0.01 if on_gpus and node["Resources"].get("GPU") else 0
        options = {"num_cpus": 0, "num_gpus": gpus, "max_retries": 0, "scheduling_strategy": there}
        asked[name] = ask.options(**options).remote(flat, name)
    return [_answer(ref, name, max(0.0, deadline - time.monotonic())) for name, ref in asked.items()]


def _answer(ref: Any, name: str, patience_s: float) -> Facts:
    import ray  # noqa: PLC0415

    try:
        return Facts.of(ray.get(ref, timeout=patience_s))
    except ray.exceptions.GetTimeoutError:
        ray.cancel(ref, force=True)
        return Facts(name, failure=f"no answer within {patience_s:.0f} s. Is it up, and not too busy?")
    except ray.exceptions.RayError as error:
        return Facts(name, failure=last_line(str(error), "it does not answer"))


def _travelling() -> Callable[[Flat, str], dict[str, Any]]:
    """A function that is sent by value, so that a node without the package can say so itself."""

    def examined(flat: Flat, name: str) -> dict[str, Any]:
        try:
            from dataclasses import asdict  # noqa: PLC0415

            from fed_lorac.config import Config  # noqa: PLC0415
            from fed_lorac.experiment.doctor import examine  # noqa: PLC0415

            return asdict(examine(Config.from_flat(flat), name))
        except Exception as error:
            return {"node": name, "failure": f"{type(error).__name__}: {error}"}

    return examined
