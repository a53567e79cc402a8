"""One delta for all, and one more for each cluster of cameras: those of one weather, or those whose updates are alike.

    M = sum_k w_k delta_k,   M_g = the same over cluster g,   G_g <- G_g + share (M_g - M)

All cameras fold M as under `merged`. A cluster's cameras have G_g beneath as well, sent whole whenever it has changed,
the way that M goes down; the server keeps G_g as it is, so what a rank leaves out is never lost. With another learning
rate of the server's, M and M_g are each times that. Clustered federated learning (Sattler et al. 2020, arXiv
1910.01991) with a part that all share.

Without the `shared` part each cluster learns by itself, as in the paper: its cameras are sent the sum of its own means,
one frame, and a camera of no cluster keeps the base.

With the downlink `state` all of this is done to the states that cameras send in place of the deltas that these say, and
M and G_g go down as states, a few numbers each. Exact where the delta is linear in the state.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.aggregation.aggregators import ClientDelta, DeltaMean, Mean
from fed_lorac.aggregation.clustering import clusters, cosines, gram, nearest
from fed_lorac.aggregation.delta_sum import DeltaSum, State, Sums
from fed_lorac.aggregation.server_optimizers import Sgd
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.settings import setting
from fed_lorac.server.strategy import PersonalPart, Proposal, ServerState, Strategy

from .fedavg import decode_state, mean_state
from .merged import DOWNLINKS, MergedFedAvg, check_svd_rank, compress, refuses_full

__all__ = ["ClusteredFedAvg"]

_FOUND, _MOVED = "cluster", "moved"  # notes: camera -> found cluster; cluster -> the round its delta is of


@dataclass(frozen=True)
class ClusteredFedAvg(Strategy):
    """Averaging of merged deltas, for all and by cluster.

    By similarity, clusters are found in the first round that counts `clusters` cameras or more. A camera that was not
    counted then joins the cluster that it is most like, in the first round that counts it beside cameras of clusters.
    """

    source = "Clustered federated learning, arXiv 1910.01991, beside a shared mean"
    exact = True
    draws_anew = True
    personal_kind = "delta"

    by: str = setting("weather", "what cameras of one cluster have in common", choices=("weather", "similarity"))
    clusters: int = setting(3, "number of clusters that are looked for, by similarity", least=1)
    share: float = setting(
        1.0, "how much of its difference from the shared mean a cluster takes; 0: as merged", least=0, most=1
    )
    downlink: str = setting(
        "svd",
        "how deltas go down, the shared one and those of clusters; state: as the mean states of linear adapters",
        choices=(*DOWNLINKS, "state"),
    )
    svd_rank: int = setting(0, "rank of what svd sends for each tensor; 0: as many rows as its factors had", least=0)
    server_lr: float = setting(1.0, "the server's learning rate: the mean is multiplied by it", above=0)
    shared: bool = setting(
        True, "what all learn is beneath what a cluster does; false: each cluster by itself, for one frame down"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shared and self.share != 1:
            raise ConfigError(
                "A cluster takes a share of its difference from what all share; ClusteredFedAvg came with share = "
                f"{self.share} and without the shared part. Set share to 1, or shared to true."
            )
        if self.by == "weather" and self.clusters != type(self).clusters:
            raise ConfigError(
                "So many clusters are looked for by similarity, and weathers are as many as there are; ClusteredFedAvg "
                f'came with clusters = {self.clusters} and by = "weather". Remove it, or set by = "similarity".'
            )
        check_svd_rank(self, self.downlink, self.svd_rank)

    @property
    def update_kind(self) -> Literal["delta", "state"]:  # type: ignore[override]  # which hangs on a setting here
        """A delta, or a state, as it goes down."""
        return "state" if self._of_states else "delta"

    @property
    def _of_states(self) -> bool:
        return self.downlink == "state"

    def refuses(self, adapter: Adapter) -> str | None:
        """Full fine-tuning; and mean states that the delta is not linear in."""
        if self._of_states and not adapter.linear:
            return (
                "Mean states go down where the delta is linear in them, or they would not say the mean delta; "
                f'{type(adapter).__name__}\'s is not, and ClusteredFedAvg came with downlink = "state". Set that to '
                '"svd", or use a linear adapter.'
            )
        return refuses_full(adapter)

    def refuses_fleet(self, *, per_round: int, weather_walks: bool) -> str | None:
        """Weathers that are no cluster's own; and more clusters than a round has cameras."""
        if not self.share:  # there are no clusters
            return None
        if self.by == "weather" and weather_walks:
            return (
                "Cameras are clustered by the weather that is assigned to them, and a walk takes each camera through "
                'all of them; ClusteredFedAvg came with by = "weather". Set by = "similarity", or choose another '
                "schedule."
            )
        if self.by == "similarity" and self.clusters > per_round:
            return (
                "Clusters are found among the cameras of one round, each with at least one; ClusteredFedAvg came with "
                f"clusters = {self.clusters}, and a round draws {per_round} cameras. Lower the first or raise the "
                "second."
            )
        return None

    @property
    def _shared(self) -> MergedFedAvg:
        """What is done for all, to deltas."""
        return MergedFedAvg(self.downlink, self.svd_rank, server_optimizer=Sgd(self.server_lr))

    def _for_all(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        """What is done for all."""
        if self._of_states:
            return mean_state(server, deltas, Mean(), Sgd(self.server_lr))
        return self._shared.propose(server, deltas)

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        """The update for all; and beside it each cluster's delta as it would be."""
        if not self.share:
            return self._for_all(server, deltas)
        means = _ClusterMeans(self._of_states)
        passing = means.passing(server, deltas, wait=self.by == "similarity")
        shared = self._for_all(server, passing) if self.shared else _nothing(passing)
        found = self._assign(_found(server), means)
        for camera, _, said, weight in means.waiting:
            if str(camera) in found:
                means.add(found[str(camera)], said, weight)
        alone = len(means.by_cluster) < 2 and not found.items() - _found(server).items()
        if self.shared and alone:  # the cluster's mean is that of all, and nothing moves
            return replace(shared, notes={_FOUND: {**_found(server), **found}})
        steps = _dense_sums(shared.update) if self._of_states else shared.exact
        sums, rounds = dict(shared.sums), {}
        for cluster, mean in sorted(means.by_cluster.items()):
            rounds[str(cluster)] = server.round
            sums[_kind(cluster)] = {
                name: self._moved(server, cluster, name, total, steps.get(name))
                for name, total in mean.deltas().items()
            }
        notes = {_FOUND: {**_found(server), **found}, _MOVED: {**server.notes.get(_MOVED, {}), **rounds}}
        return replace(shared, sums=sums, notes=notes)

    def commit(self, server: ServerState, proposal: Proposal, decoded: Sums) -> ServerState:
        """As merged; clusters that did not move keep their deltas."""
        plain = self._of_states or not self.shared
        shared = server.with_(proposal.sums) if plain else self._shared.commit(server, proposal, decoded)
        before = {kind: sums for kind, sums in server.sums.items() if kind.startswith(_kind(""))}
        return shared.with_({**before, **shared.sums}, proposal.notes)

    def decode_update(self, server: ServerState, update: State) -> Sums:
        """The delta that the update is, or that its state says."""
        return decode_state(server, update) if self._of_states and update else super().decode_update(server, update)

    def cluster_of(self, server: ServerState, camera: int) -> int | None:
        """By the camera's weather, or as found."""
        if not self.share:
            return None
        return server.weather_of(camera) if self.by == "weather" else _found(server).get(str(camera))

    def block_key(self, server: ServerState, camera: int) -> int:
        """Cameras of one cluster begin their local updates from one base."""
        cluster = self.cluster_of(server, camera)
        return -1 if cluster is None else cluster

    def personal(self, server: ServerState, camera: int) -> PersonalPart | None:
        """The delta of the camera's cluster, as of the round in which it last moved."""
        cluster = self.cluster_of(server, camera)
        if cluster is None or (moved := server.notes.get(_MOVED, {}).get(str(cluster))) is None:
            return None
        delta = server.sums[_kind(cluster)]
        name = ("group", cluster)  # random streams go by it
        if self._of_states:
            return PersonalPart(name, moved, lambda: {key: total.dense() for key, total in delta.items()})
        return PersonalPart(name, moved, lambda: compress(delta, server.spec, self.downlink, self.svd_rank))

    def withhold(self, before: ServerState, after: ServerState, part: PersonalPart) -> ServerState:
        """A delta that cannot be sent, one beyond fp16, say, stays as it was; where a camera has joined its cluster in
        this round, the cluster is sent it once more."""
        kind, key = _kind(part.name[1]), str(part.name[1])
        sums = {**after.sums, kind: before.sums.get(kind, {})}
        moved = dict(after.notes[_MOVED])
        if key in (then := before.notes.get(_MOVED, {})):
            joined = _found(after).keys() - _found(before).keys()
            if all(_found(after)[camera] != part.name[1] for camera in joined):
                moved[key] = then[key]
        else:
            del sums[kind], moved[key]
        return after.with_(sums, {_MOVED: moved})

    def _moved(self, server: ServerState, cluster: int, name: str, mean: DeltaSum, step: DeltaSum | None) -> DeltaSum:
        """A cluster's delta of one tensor after the round: its mean takes it away from the step that all take."""
        moved = DeltaSum(mean.shape).add(mean, self.share * self.server_lr)
        if step is not None:
            moved.add(step, -self.share)
        before = server.sums.get(_kind(cluster), {}).get(name)
        return moved if before is None else moved.add(before)

    def _assign(self, found: Mapping[str, int], means: "_ClusterMeans") -> dict[str, int]:
        """The cluster of each of these cameras; empty where clusters are yet to be found."""
        cameras, deltas = [camera for camera, *_ in means.waiting], [delta for _, delta, *_ in means.waiting]
        known = {row: found[str(camera)] for row, camera in enumerate(cameras) if str(camera) in found}
        if len(known) < len(cameras):
            if not found and len(cameras) < self.clusters:
                return {}
            alike = cosines(gram(deltas))
            if not found:
                known = dict(enumerate(clusters(alike, self.clusters)))
            elif known:
                known |= {row: nearest(alike, known, row) for row in range(len(cameras)) if row not in known}
        return {str(camera): known[row] for row, camera in enumerate(cameras) if row in known}


@dataclass
class _ClusterMeans:
    """The mean of each cluster, of deltas or `of_states`; and what waits, where clusters are found by what came: a
    camera, its delta, what is averaged of it, its weight."""

    of_states: bool
    by_cluster: dict[int, DeltaMean] = field(default_factory=dict)
    waiting: list[tuple[int, Sums, Sums, float]] = field(default_factory=list)

    def passing(self, server: ServerState, deltas: Iterable[ClientDelta], *, wait: bool) -> Iterator[ClientDelta]:
        """The same deltas, each added to its cluster's mean as it passes, or waiting until all have come."""
        for one in deltas:
            delta = one.sums() if wait or not self.of_states else {}
            said = _dense_sums(one.state) if self.of_states else delta
            if wait:
                self.waiting.append((one.camera, delta, said, one.weight))
            else:
                self.add(server.weather_of(one.camera), said, one.weight)
            yield one
            del one

    def add(self, cluster: int, said: Sums, weight: float) -> None:
        """What one camera sent, to its cluster's mean."""
        self.by_cluster.setdefault(cluster, DeltaMean()).add_sums(said, weight)


def _found(server: ServerState) -> Mapping[str, int]:
    """Camera -> its cluster, as found so far."""
    return server.notes.get(_FOUND, {})


def _kind(cluster: int | str) -> str:
    return f"cluster-{cluster}"


def _nothing(deltas: Iterable[ClientDelta]) -> Proposal:
    """What goes down for all where clusters share nothing, once all cameras have passed."""
    for _ in deltas:
        pass
    return Proposal({}, {})


def _dense_sums(state: State) -> Sums:
    """A state's tensors, each as a sum of its own."""
    return {key: DeltaSum(value.shape).add_dense(value, 1.0) for key, value in state.items()}
