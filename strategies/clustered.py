"""One change for all, and one more for each group of cameras: those of one weather, or those whose updates are alike.

    M = sum_k w_k delta_k,   M_g = the same over group g,   G_g <- G_g + share (M_g - M)

All cameras fold M as under `merged`. A group's cameras have G_g beneath as well, sent whole whenever it has changed,
the way that M goes down; the server keeps G_g as it is, so what a rank leaves out is never lost. With another learning
rate of the server's, M and M_g are each times that. Clustered federated learning (Sattler et al. 2020, arXiv
1910.01991) with a part that all share.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from fed_lorac.aggregation.clustering import clusters, cosines, gram, nearest
from fed_lorac.aggregation.delta_sum import DeltaSum, Mean, State, Sums, compressed, sum_states
from fed_lorac.errors import ConfigError
from fed_lorac.seeds import stream
from fed_lorac.server.downlink import Update
from fed_lorac.wire.frame import encode
from fed_lorac.wire.refusals import RefusedFrameError
from fed_lorac.wire.updates import personal_fingerprint

from .merged import MergedFedAvg

__all__ = ["ClusteredFedAvg"]

_GROUPS, _TOLD = "group", "told"  # what is noted: camera -> found group, group -> the round its change is of


class ClusteredFedAvg(MergedFedAvg):
    """Averaging of merged deltas, for all and by group.

    Args:
        group_of: camera -> its group, 0 or more; None: groups are found by the similarity of updates, in the first
            round that counts `groups` cameras or more. Who was not counted then joins the group that it is most like,
            in the first round that counts it beside cameras of groups.
        groups: how many are looked for.
        share: how much of its difference from the mean a group takes; 0: as `merged`.
        **common: see `MergedFedAvg` and `FrameStrategy`.

    Raises:
        ConfigError: no groups, a share beyond 0 to 1, a server optimizer or an aggregator other than the mean.
    """

    source = "Clustered federated learning, arXiv 1910.01991, beside a shared mean"
    exact = True

    def __init__(
        self, *, group_of: Callable[[int], int] | None = None, groups: int = 3, share: float = 1.0, **common: Any
    ) -> None:
        super().__init__(**common)
        if groups < 1 or not 0 <= share <= 1:
            raise ConfigError(f"Groups are at least 1, and a group's share is from 0 to 1; got {groups} and {share}.")
        if (self.server.name, self.aggregator.name) != ("average", "mean"):
            raise ConfigError(
                "A group differs from all by its mean less theirs; it came with a server that steps by "
                f"{self.server.name!r} from an aggregator {self.aggregator.name!r}. Use average of mean, or no groups "
                "(MergedFedAvg)."
            )
        self.group_of, self.groups, self.share = group_of, groups, share
        self._frames: dict[int, tuple[int, bytes]] = {}  # group -> the round that its change is of, and that change
        self._means: dict[int, Sums] = {}
        self._found: dict[str, int] = {}

    def combine(self, states: Iterable[tuple[State, float]]) -> tuple[State, Sums]:
        """The update for all; and the groups' means beside it."""
        self._means, self._found = {}, {}
        if not self.share:
            return super().combine(states)
        means: dict[int, Mean] = {}
        heard: list[tuple[int, Sums, float]] = []
        update, self._step = super().combine(self._listening(states, means, heard))
        self._found = self._alike_ones([camera for camera, _, _ in heard], [change for _, change, _ in heard])
        for camera, change, weight in heard:
            if str(camera) in self._found:
                self._add(means, self._found[str(camera)], change, weight)
        news = self._found.items() - self._known.items()
        if len(means) > 1 or news:  # where one group is all there is, its mean is theirs: nothing moves
            self._means = {group: mean.deltas() for group, mean in sorted(means.items())}
        return update, self._step

    def settle(self, sent: Sums) -> Sums:
        """The groups' changes move by what sets their means apart; one that cannot be sent stays as it was."""
        before = {key: total for key, total in self.kept.items() if key.startswith(f"{_GROUPS}:")}
        gained = super().settle(sent)
        self.kept |= before
        told = dict(self.notes.get(_TOLD, {}))
        for group, mean in self._means.items():
            moved = {name: self._moved(group, name, total) for name, total in mean.items()}
            try:
                self._frames[group] = self.report.round, self._encoded(group, self.report.round, moved)
            except RefusedFrameError as error:  # a difference beyond fp16, for one
                logging.getLogger(__name__).warning("The change of group %d is refused: %s", group, error.reason)
                continue
            self.kept |= {_key(group, name): total for name, total in moved.items()}
            told[str(group)] = self.report.round
        self.notes = {_GROUPS: {**self._known, **self._found}, _TOLD: told}
        return gained

    def group(self, camera: int) -> int | None:
        """As given, or as found."""
        if not self.share:
            return None
        return self._known.get(str(camera)) if self.group_of is None else self.group_of(camera)

    def kind(self, camera: int) -> int:
        """Cameras of one group begin their turns from one base."""
        group = self.group(camera)
        return -1 if group is None else group

    def own(self, camera: int) -> Update | None:
        """The change of the camera's group, as of the round in which it last moved."""
        group = self.group(camera)
        round = self.notes.get(_TOLD, {}).get(str(group))
        return None if group is None or round is None else Update(round, self._frame(group, round))

    @property
    def _known(self) -> Mapping[str, int]:
        """Camera -> its group, as found so far."""
        return self.notes.get(_GROUPS, {})

    def _moved(self, group: int, name: str, mean: DeltaSum) -> DeltaSum:
        """A group's change of one tensor after the round."""
        moved = DeltaSum(mean.shape).add(mean, self.share * self.server.lr).add(self._step[name], -self.share)
        before = self.kept.get(_key(group, name))
        return moved if before is None else moved.add(before)

    def _frame(self, group: int, round: int) -> bytes:
        """The group's change as of that round; made anew only by who resumed."""
        if self._frames.get(group, (0, b""))[0] != round:
            change = {name: self.kept[key] for name in self._ranks if (key := _key(group, name)) in self.kept}
            self._frames[group] = round, self._encoded(group, round, change)
        return self._frames[group][1]

    def _encoded(self, group: int, round: int, change: Sums) -> bytes:
        rng = stream(self.seed, "codec", "server", round, "group", group)
        state: State = {}
        for name, total in change.items():
            state |= compressed(total, name, self.downlink, self._ranks[name])
        return encode(
            state, dtype=self.dtype, base=personal_fingerprint(self.base), rng=rng, topk_share=self.topk_share
        )

    def _listening(
        self, states: Iterable[tuple[State, float]], means: dict[int, Mean], heard: list[tuple[int, Sums, float]]
    ) -> Iterator[tuple[State, float]]:
        """The same states, each added to its group's mean as it passes; kept until all have come, where groups are
        found by what came."""
        for state, weight in states:
            change = sum_states([(self.expand(state), 1.0)], self.shapes, self.scale)
            if self.group_of is None:
                heard.append((self.speaker, change, weight))
            else:
                self._add(means, self.group_of(self.speaker), change, weight)
            yield state, weight

    def _add(self, means: dict[int, Mean], group: int, change: Sums, weight: float) -> None:
        means.setdefault(group, Mean(self.shapes, 1.0)).add_sums(change, weight)

    def _alike_ones(self, cameras: list[int], changes: list[Sums]) -> dict[str, int]:
        """The group of each of these cameras; empty where groups are yet to be found."""
        known = {row: self._known[str(camera)] for row, camera in enumerate(cameras) if str(camera) in self._known}
        if len(known) < len(cameras):
            if not self._known and len(cameras) < self.groups:
                return {}
            alike = cosines(gram(changes))
            if not self._known:
                known = dict(enumerate(clusters(alike, self.groups)))
            elif known:
                known |= {row: nearest(alike, known, row) for row in range(len(cameras)) if row not in known}
        return {str(camera): known[row] for row, camera in enumerate(cameras) if row in known}


def _key(group: int, name: str) -> str:
    return f"{_GROUPS}:{group}/{name}"
