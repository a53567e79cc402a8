"""The Ray cluster that cameras run on: one of this process's own, or the one that RAY_ADDRESS names. Knows Ray and
resources; not apps or messages."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from logging import WARNING
from typing import Any

import ray
import torch

from fed_lorac.config.sections import RunConfig
from fed_lorac.errors import RunError

__all__ = ["joined"]

_KNOCK_S = 10.0

Share = dict[str, int | float]


@contextmanager
def joined(run: RunConfig) -> Iterator[Share]:
    """Join the cluster, yield what one worker takes of a node (`num_cpus`, `num_gpus`), and leave it whatever happens.

    Without RAY_ADDRESS it is a cluster for this run alone, with room for `run.workers`, even if others run on this
    machine. With it, as many workers run as fit on its nodes, and `run.workers` says nothing.

    Raises:
        RunError: the cluster does not answer, or none of its nodes has room for a worker.
    """
    _join(run)
    try:
        share = _share(run)
        _check_room(share)
        yield share
    finally:
        ray.shutdown()


def _join(run: RunConfig) -> None:
    address = os.environ.get("RAY_ADDRESS", "")
    # On a cluster of others' making, the number of CPUs is theirs to say.
    own: dict[str, Any] = {} if address else {"num_cpus": run.workers * run.threads, "include_dashboard": False}
    try:
        _knock(address)
        # Workers' own words stay in Ray's log files: at the terminal they would break the progress bar.
        ray.init(address or "local", logging_level=WARNING, log_to_driver=False, **own)
    except Exception as error:  # Ray raises nothing more particular where a node does not start in time
        raise RunError(
            f'The engine "flower" needs a Ray cluster; {address or "one for this run"} could not be '
            f"{'joined' if address else 'started'}: {error}. "
            + ("Is it up, with this Ray's version? Unset RAY_ADDRESS to run here." if address else "See Ray's log.")
        ) from error


def _knock(address: str) -> None:
    """OSError where nobody is at host:port: Ray itself goes on trying for minutes. What `auto` means, it knows best."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


def _share(run: RunConfig) -> Share:
    """CPUs by the config alone; a GPU where cameras train on one, shared by this process's own workers."""
    if run.device == "cpu" or (run.device == "auto" and not torch.cuda.is_available()):
        return {"num_cpus": run.threads, "num_gpus": 0}
    own = run.workers if os.environ.get("RAY_ADDRESS") else max(1, torch.cuda.device_count())
    return {"num_cpus": run.threads, "num_gpus": min(1.0, own / run.workers)}


def _check_room(share: Share) -> None:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    rooms = [(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes]
    if not any(cpus >= share["num_cpus"] and gpus >= share["num_gpus"] for cpus, gpus in rooms):
        came = ", ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in rooms) or "no node at all"
        raise RunError(
            f"A worker needs run.threads = {share['num_cpus']} CPUs and {share['num_gpus']:g} GPUs on one node; "
            f"the cluster has {came}. Lower run.threads, set run.device, or add a node."
        )
