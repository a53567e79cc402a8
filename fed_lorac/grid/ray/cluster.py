"""The Ray cluster that cameras run on: one of this process's own, or one that is named. Knows Ray and resources; not
apps or messages."""

import math
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import WARNING
from typing import Any

import ray
import ray._private.worker
import torch

from fed_lorac.config.sections import RayWorkers, RunConfig
from fed_lorac.errors import RunError
from fed_lorac.experiment.machine import check_workers
from fed_lorac.runtime.precision import resolved_device

__all__ = ["Share", "address_of", "alive_nodes", "check_own", "check_room", "free_room", "joined", "room"]

_KNOCK_S = 10.0

Share = dict[str, int | float]


def address_of(run: RunConfig) -> str:
    """The cluster to join: the one that `run.ray.address` names, else RAY_ADDRESS; empty: a Ray of one's own."""
    return run.table(RayWorkers).address or os.environ.get("RAY_ADDRESS", "")


@contextmanager
def joined(run: RunConfig) -> Iterator[Share]:
    """Join the cluster, yield what one worker takes of a node (`num_cpus`, `num_gpus`), and leave it whatever happens.

    Without an address it is a cluster for this run alone, with room for `run.workers`, even if others run on this
    machine. A process that has joined a cluster already stays in that one.

    Raises:
        RunError: the cluster does not answer, or none of its nodes has room for a worker.
    """
    check_own(run)
    address, mine = address_of(run), not ray.is_initialized()
    with _quiet():
        if mine:
            _join(run, address)
        try:
            share = _share(run, bool(address))
            if not room(share):
                raise RunError(f"{_law(share)} Lower run.threads, set run.device, or add a node.")
            yield share
        finally:
            if mine:
                ray.shutdown()


def check_own(run: RunConfig) -> None:
    """Raise `RunError`, with nothing started, where a Ray of this process's own would have more workers than its
    machine carries. Of others' clusters, the number of CPUs is theirs to say."""
    if not address_of(run) and not ray.is_initialized():
        check_workers(run)


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray announces every dead worker on this process's standard output, where JSON may be due; we say it ourselves."""
    ours, before = ray._private.worker, getattr(ray._private.worker, "_worker_logs_enabled", True)
    ours._worker_logs_enabled = False
    try:
        yield
    finally:
        ours._worker_logs_enabled = before


def _join(run: RunConfig, address: str) -> None:
    own: dict[str, Any] = {} if address else {"num_cpus": run.workers * run.threads, "include_dashboard": False}
    try:
        _knock(address)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*override accelerator", FutureWarning)
            # Workers' own words stay in Ray's log files: at the terminal they would break the progress bar.
            ray.init(address or "local", logging_level=WARNING, log_to_driver=False, **own)
    except Exception as error:  # Ray raises nothing more particular where a node does not start in time
        raise RunError(
            f"Workers need a Ray cluster; {address or 'one for this run'} could not be "
            f"{'joined' if address else 'started'}: {error}. "
            + (
                "Is it up, with this Ray's version? Without run.ray.address and RAY_ADDRESS a run stays here."
                if address
                else "See Ray's log."
            )
        ) from error


def _knock(address: str) -> None:
    """OSError where nobody is at host:port: Ray itself goes on trying for minutes. What `auto` means, it knows best."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()


def _share(run: RunConfig, of_others: bool) -> Share:
    """CPUs by the config alone; a GPU where cameras train on one, shared by this process's own workers.

    A worker's part of a GPU is of a single one, so three workers on two GPUs take a half each, not two thirds.
    """
    if resolved_device(run.device) == "cpu":
        return {"num_cpus": run.threads, "num_gpus": 0}
    own = run.workers if of_others else max(1, torch.cuda.device_count())
    return {"num_cpus": run.threads, "num_gpus": 1 / math.ceil(run.workers / own)}


def alive_nodes() -> list[dict[str, Any]]:
    """Ray's entries of the nodes that are up."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def room(share: Share) -> int:
    """How many workers of this share the cluster holds when nothing else runs on it."""
    return sum(_places(node["Resources"], share) for node in alive_nodes())


def _places(node: dict[str, float], share: Share) -> int:
    """A hair is added, because a third of a GPU fits three times; what is left of one GPU adds to no other's."""
    places = [node.get("CPU", 0) // share["num_cpus"]]
    if share["num_gpus"]:
        places.append(int(node.get("GPU", 0)) * int(1 / share["num_gpus"] + 1e-6))
    return int(min(places))


def _law(share: Share) -> str:
    rooms = [(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in alive_nodes()]
    came = ", ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in rooms) or "no node at all"
    return (
        f"A worker needs run.threads = {share['num_cpus']} CPUs and {share['num_gpus']:g} GPUs on one node; the "
        f"cluster has {came}."
    )


def free_room() -> str:
    """What of the cluster nobody holds at the moment, in words."""
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    all_of_it: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    kinds = [kind for kind in ("CPU", "GPU") if all_of_it.get(kind)]
    said = " and ".join(f"{free.get(kind, 0):g} of its {all_of_it[kind]:g} {kind}s" for kind in kinds)
    return f"{said or 'nothing'} are free in the cluster. Is it in use by others?"


def check_room(share: Share, workers: int) -> None:
    """Raise `RunError` where a cluster can never hold as many workers at once."""
    if (places := room(share)) < workers:
        raise RunError(
            f"{_law(share)} That is room for {places} workers, and run.workers = {workers}. "
            f"Set run.workers = {places}, which gives the same results, or add nodes."
        )
