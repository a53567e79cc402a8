"""The processes of the scenario under pfl-research, started as its guide to fast simulations starts them: one a worker,
which find one another through PFL_WORKER_ADDRESSES. What each does is in `pfl_worker`."""

import os
import socket
import subprocess
import sys
from importlib import import_module

from peers.settings import settings_of_this_run

_RANK, _ADDRESSES = "PFL_WORKER_RANK", "PFL_WORKER_ADDRESSES"


def run() -> None:
    """The whole arm: this process is the worker of rank 0 and starts the others."""
    settings, environment = settings_of_this_run(), {"PFL_PYTORCH_DEVICE": settings_of_this_run().device}
    others = []
    if settings.workers > 1 and _RANK not in os.environ:
        environment[_ADDRESSES] = ",".join(f"localhost:{port}" for port in _free_ports(settings.workers))
        others = [
            subprocess.Popen([sys.executable, "-m", "peers", "pfl"], env=os.environ | environment | {_RANK: str(rank)})
            for rank in range(1, settings.workers)
        ]
        environment[_RANK] = "0"
    os.environ |= environment
    import_module("peers.pfl_worker").work(settings)  # pfl reads the environment when it is imported
    if any(other.wait(60) for other in others):
        raise RuntimeError(f"workers ended with {[other.returncode for other in others]}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
