"""Nodes become cameras as they register. Knows Flower's grid; not what cameras do."""

import logging
import time
from collections.abc import Mapping

from flwr.serverapp import Grid

__all__ = ["register_nodes"]

_POLL_S = 1.0


def register_nodes(grid: Grid, roster: Mapping[int, int], *, at_least: int, wait_s: float) -> dict[int, int]:
    """The roster (node id -> camera) with the grid's new nodes as its next cameras, ascending by node id.

    Waits until `at_least` nodes have registered, and no longer than `wait_s` seconds: Flower starts a run's first
    round whether they have or not.
    """
    deadline = time.monotonic() + wait_s
    while len(nodes := set(grid.get_node_ids())) < at_least and time.monotonic() < deadline:
        logging.getLogger("flwr").info("Waiting for nodes: %d of %d have registered.", len(nodes), at_least)
        time.sleep(_POLL_S)
    return {**roster, **{node: len(roster) + i for i, node in enumerate(sorted(nodes - roster.keys()))}}
