"""What a server settles in a first round of its own: the layers that adapters are on, or the bases that they stand
between. Knows names and states; not how either is found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fed_lorac.adapters.bases import BASIS_KEYS, FoundBases
from fed_lorac.adapters.choice import CHOICE_KEY, choice_state, chosen_in

__all__ = ["NOTHING", "Settled", "settled_in", "settled_state", "settles", "without_settled"]


@dataclass(frozen=True)
class Settled:
    """Layers, or bases; neither, where nothing is settled, or never is."""

    layers: tuple[str, ...] = ()
    bases: FoundBases | None = None


NOTHING = Settled()


def settled_state(settled: Settled, candidates: Sequence[str]) -> dict[str, Tensor]:
    """The state that tells of it; `candidates`: the layers that may be chosen."""
    layers = choice_state(candidates, settled.layers) if settled.layers else {}
    return {**layers, **(settled.bases.state() if settled.bases else {})}


def settled_in(state: Mapping[str, Tensor], candidates: Sequence[str]) -> Settled:
    """The inverse; nothing, where a state tells of nothing settled."""
    return Settled(chosen_in(candidates, state), FoundBases.told(state))


def settles(state: Mapping[str, Tensor]) -> bool:
    """Whether an update, or a whole model, says that something is settled."""
    return any(name == CHOICE_KEY or name.endswith(BASIS_KEYS) for name in state)


def without_settled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What else a state holds."""
    return {key: tensor for key, tensor in state.items() if key != CHOICE_KEY and not key.endswith(BASIS_KEYS)}
