"""Each camera its own rank: the mean of merged factors, and of that the nearest factors of the camera's rank (FlexLoRA,
Bai et al. 2024, arXiv 2402.11505).

Factors live on from round to round: a camera trains on from those it was told, and sends them whole. The server keeps
the mean of the products; what a camera's rank leaves out of it stays behind. What is trained beside the factors goes to
all and is folded, as under every strategy.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fed_lorac.adapters.deltas import pair_of
from fed_lorac.aggregation.delta_sum import DeltaSum, State, Sums, relative_distance, sum_states
from fed_lorac.errors import ConfigError
from fed_lorac.seeds import stream
from fed_lorac.server.downlink import Update
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.updates import personal_fingerprint

__all__ = ["FlexLora"]

_GLOBAL = "global/"  # before a tensor's name in what is kept
Template = Mapping[str, Sequence[int]]


class FlexLora(FrameStrategy):
    """Averaging of merged factors, handed out by rank; arguments as `FrameStrategy`'s.

    Raises:
        ConfigError: a server optimizer or an aggregator other than the mean, which are for deltas, not for factors
            that live on; or factors per kernel, of which no rank can be taken.
    """

    source = "FlexLoRA, arXiv 2402.11505"
    exact = False

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        if (self.server.name, self.aggregator.name) != ("average", "mean"):
            raise ConfigError(
                "FlexLoRA's mean is of factors that live on, not of changes; it came with a server that steps by "
                f"{self.server.name!r} from an aggregator {self.aggregator.name!r}. Use average of mean."
            )
        if any(len(shape) != 2 for shape in self._factors(self.template).values()):
            raise ConfigError("A rank is taken of layer-wise factors; these are per kernel. Train layer-wise ones.")
        self._told: tuple[int, dict[int, bytes]] = (0, {})

    def combine(self, states: Iterable[tuple[State, float]]) -> tuple[State, Sums]:
        """What is trained beside the factors; and the mean of all, products too."""
        mean = self.stepped(states)
        self._mean = {name: total for name, total in mean.items() if pair_of(self.template, name) is not None}
        return {name: total.dense() for name, total in mean.items() if name not in self._mean}, mean

    def prepare(self, server_round: int) -> None:
        """Every rank's factors, which may be beyond the dtype."""
        one_of = self._one_of_each_kind()
        made = {kind: self._encoded(self._mean, camera, server_round) for kind, camera in one_of.items()}
        self._told = (server_round, made)

    def settle(self, sent: Sums) -> Sums:
        """The mean of products takes the place of the one before; weights gain the difference."""
        before = self.outside(self.kept)
        gained = {name: DeltaSum(total.shape).add(total) for name, total in self._mean.items()}
        for name, total in before.items():
            gained[name].add(total, -1.0)
        self.kept = {_GLOBAL + name: total for name, total in self._mean.items()}
        return {**sent, **gained}

    def outside(self, kept: Sums) -> Sums:
        """The mean of products: it is in no update."""
        return {key.removeprefix(_GLOBAL): total for key, total in kept.items() if key.startswith(_GLOBAL)}

    def distance(self, sent: Sums, exact: Sums) -> float:
        """The root mean square over the cameras, each with what it decodes."""
        one_of = self._one_of_each_kind()
        counts = Counter(map(self.kind, self.roster.values()))
        off = {kind: relative_distance({**sent, **self._decoded(one_of[kind])}, exact) for kind in counts}
        return math.sqrt(sum(counts[kind] * off[kind] ** 2 for kind in counts) / counts.total())

    def own(self, camera: int) -> Update | None:
        """The nearest factors of the camera's rank to the mean of products."""
        if not self.kept:
            return None
        return Update(self.folded_round, self._frame(camera))

    def _one_of_each_kind(self) -> dict[int, int]:
        """Kind -> a camera of it."""
        return {self.kind(camera): camera for camera in self.roster.values()}

    def _frame(self, camera: int) -> bytes:
        """Made once for all cameras of a rank; again after a resume, or for a camera that came later."""
        if self._told[0] != self.folded_round:
            self._told = (self.folded_round, {})
        kind, frames = self.kind(camera), self._told[1]
        if kind not in frames:
            frames[kind] = self._encoded(self.outside(self.kept), camera, self.folded_round)
        return frames[kind]

    def _encoded(self, mean: Sums, camera: int, round: int) -> bytes:
        rng = stream(self.seed, "codec", "server", round, "kind", self.kind(camera))
        state, base = self._ranked(mean, camera), personal_fingerprint(self.base)
        return encode(state, dtype=self.dtype, base=base, rng=rng, topk_share=self.topk_share)

    def _ranked(self, mean: Sums, camera: int) -> State:
        """B as it is before the scale, so that its camera trains on from it."""
        found: State = {}
        for name, total in mean.items():
            stem = name.removesuffix(".weight")
            A, B = total.truncated(self.template_for(camera)[f"{stem}.A"][0])
            found |= {f"{stem}.A": A, f"{stem}.B": B / self.scale}
        return found

    def _decoded(self, camera: int) -> Sums:
        state = decode(self._frame(camera), base=personal_fingerprint(self.base))
        return sum_states([(state, 1.0)], self.shapes, self.scale)

    def _factors(self, template: Template) -> Template:
        return {key: shape for key, shape in template.items() if key.endswith((".A", ".B"))}
