"""Nodes become cameras as they register. Knows Flower's grid; not what cameras do."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flwr.serverapp import Grid

__all__ = ["Numbered", "nodes_of", "register_nodes"]

_POLL_S = 1.0


@dataclass(frozen=True)
class Numbered(Mapping[int, int]):
    """Node `first` + k is camera k: the roster of any number of cameras in three numbers."""

    first: int
    count: int
    by: int

    def __getitem__(self, key: int) -> int:
        if not self.first <= key < self.first + self.count:
            raise KeyError(key)
        return key + self.by

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.first + self.count))

    def __len__(self) -> int:
        return self.count

    @property
    def inverse(self) -> "Numbered":
        """Camera -> node."""
        return Numbered(self.first + self.by, self.count, -self.by)


def nodes_of(roster: Mapping[int, int]) -> Mapping[int, int]:
    """Camera -> node."""
    return roster.inverse if isinstance(roster, Numbered) else {camera: node for node, camera in roster.items()}


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
