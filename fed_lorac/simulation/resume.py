"""What a checkpoint holds of nodes and sums, as tensors and back, and whether a run may go on. Knows Flower's records;
not rounds, nor files."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from flwr.app import RecordDict
from torch import Tensor

from fed_lorac.aggregation.delta_sum import DeltaSum, Sums
from fed_lorac.config import Config
from fed_lorac.errors import RunError
from fed_lorac.runtime.flower_private import record_bytes, record_of

__all__ = ["HEARD", "Memories", "check_rounds", "packed_tensors", "unpacked_tensors"]

HEARD = "heard"
"""The tensor that says how far each camera has heard, where they hear together."""


class Memories(Protocol):
    """The states of a fleet's nodes, where they can be saved: our own grid's."""

    @property
    def roster(self) -> Mapping[int, int]:
        """Node id -> camera."""

    def listen(self, heard: Callable[[int], int]) -> None:
        """Cameras have folded all updates up to the round that `heard` says, whether they had a message or not."""

    def fold(self, updates: Sequence[tuple[int, bytes]]) -> None:
        """Fold updates, (round, frame), that no message may have brought: they were heard together."""

    def states(self) -> Mapping[int, RecordDict]:
        """Each node's state, by node id."""

    def restore(self, states: Mapping[int, RecordDict], updates: Sequence[tuple[int, bytes]]) -> None:
        """Put states back, and fold the updates so far, (round, frame), into the fleet's global model."""


_NODE, _SUM = "node", "sum"  # the first word of a tensor's name in a checkpoint


def packed_tensors(states: Mapping[int, RecordDict], sums: Mapping[str, Sums]) -> dict[str, Tensor]:
    """Each node's state as bytes, "node <id>", and each part of the server's sums, "sum [kind, tensor, part]"."""
    tensors = {
        f"{_NODE} {node}": torch.frombuffer(bytearray(record_bytes(state)), dtype=torch.uint8)
        for node, state in states.items()
        if len(state)  # else it has been asked nothing that it answered, and begins as new
    }
    for kind, totals in sums.items():
        for name, total in totals.items():
            tensors |= {f"{_SUM} {json.dumps([kind, name, k])}": tensor for k, tensor in total.parts().items()}
    return tensors


def unpacked_tensors(tensors: Mapping[str, Tensor]) -> tuple[dict[int, RecordDict], dict[str, Sums]]:
    """The inverse of `packed_tensors`: states by node id, and sums by kind and tensor name."""
    states: dict[int, RecordDict] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        first, _, rest = key.partition(" ")
        if first == _NODE:
            states[int(rest)] = record_of(tensor.numpy().tobytes())
        elif first == _SUM:
            kind, name, part = json.loads(rest) if rest.startswith("[") else rest.split(" ")  # as it was written once
            parts.setdefault((kind, name), {})[part] = tensor
    sums: dict[str, Sums] = {}
    for (kind, name), found in parts.items():
        sums.setdefault(kind, {})[name] = DeltaSum.of_parts(found)
    return states, sums


def check_rounds(config: Config, done: int, then: int) -> bool:
    """Whether a run that is resumed with other rounds than it was asked for is no more a run that was asked for these
    at once; which is logged.

    Raises:
        RunError: fewer rounds are asked for than are done.
    """
    asked = config.run.rounds
    if asked < done:
        raise RunError(
            f"A run cannot go back; {done} rounds are done, and run.rounds is {asked} now. Ask for {done} or more."
        )
    if asked != then and config.local.schedule != "constant":
        logging.getLogger(__name__).warning(
            "The learning rate falls over all rounds, which were %d and are %d now: from here on it differs from that "
            "of a run that was asked for %d at once.",
            then,
            asked,
            asked,
        )
        return True
    return False
