"""Laws of a strategy as a value: it changes nothing that it is given, lets go of each camera, and anyone writes one."""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from cameras import SHAPES, float64_mean, folded, off, said_by, served, state, train
from torch import Tensor

from fed_lorac.aggregation.aggregators import ClientDelta, weighted_mean
from fed_lorac.aggregation.delta_sum import Sums
from fed_lorac.aggregation.server_optimizers import Momentum
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.runtime.settings import setting
from fed_lorac.server.strategy import Proposal, ServerState, Strategy
from strategies.clustered import ClusteredFedAvg
from strategies.factor_fedavg import FactorFedAvg
from strategies.fedavg import FedAvg
from strategies.flexlora import FlexLora
from strategies.flora import Flora
from strategies.merged import MergedFedAvg
from strategies.rotating_basis import RotatingBasis

STRATEGIES: list[Strategy] = [
    MergedFedAvg(),
    MergedFedAvg("dense", server_optimizer=Momentum()),
    Flora(),
    FlexLora(),
    FactorFedAvg(),
    FedAvg(),
    RotatingBasis(),
    ClusteredFedAvg(),
    ClusteredFedAvg(by="similarity", clusters=2),
]
each = pytest.mark.parametrize("own", STRATEGIES, ids=str)


def a_server(own: Strategy) -> ServerState:
    """Its state after a round."""
    one = served(type(own), 4, weather_of=lambda camera: camera % 2, **vars(own))
    with task_identity():
        train(one, 1, {0: 1, 1: 2, 2: 3, 3: 4})
    return replace(one.state, round=2)


def deltas() -> list[ClientDelta]:
    return said_by((state(10 + k), 100.0 + k) for k in range(4))


def dense(sums: Mapping[str, Sums]) -> dict[tuple[str, str], Tensor]:
    return {(kind, name): total.dense64() for kind, totals in sums.items() for name, total in totals.items()}


def equal(one: Mapping[object, Tensor], other: Mapping[object, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@each
def test_proposing_and_committing_change_nothing_and_repeat_to_the_last_bit(own: Strategy) -> None:
    server, came = a_server(own), deltas()
    sums, notes, sent = dense(server.sums), dict(server.notes), [dict(one.state) for one in came]
    proposals = [own.propose(server, came) for _ in range(2)]
    assert equal(dict(proposals[0].update), dict(proposals[1].update)) and proposals[0].notes == proposals[1].notes
    decoded = own.decode_update(server, proposals[0].update)
    pending = dense(proposals[0].sums)
    after = [own.commit(server, proposals[0], decoded) for _ in range(2)]
    assert equal(dense(after[0].sums), dense(after[1].sums)) and after[0].notes == after[1].notes
    own.gained(server, after[0], decoded)
    assert equal(dense(server.sums), sums) and server.notes == notes and equal(dense(proposals[0].sums), pending)
    assert all(equal(one.state, before) for one, before in zip(came, sent, strict=True))


@each
def test_a_camera_is_let_go_before_the_next_one_comes(own: Strategy) -> None:
    """Sums may be kept, and stacked factors; a whole camera never is."""
    before: list[weakref.ref[ClientDelta]] = []

    def coming() -> Iterator[ClientDelta]:
        for k in range(4):
            assert all(ref() is None for ref in before), "two cameras are in memory"
            [one] = said_by([(state(k), 100.0)])
            one = replace(one, camera=k)
            before.append(weakref.ref(one))
            yield one
            del one

    own.propose(a_server(own), coming())
    assert len(before) == 4


@dataclass(frozen=True)
class Dampened(Strategy):
    """Somebody's own: the mean, of which what was sent before is taken off again by a share."""

    source = "here"
    exact = False
    share: float = setting(0.5, "share of the last update that is taken back", least=0, most=1)

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        mean = weighted_mean(deltas)
        step = {name: total.dense() for name, total in mean.items()}
        for name, last in server.sums.get("last", {}).items():
            step[name] -= self.share * last.dense()
        return Proposal(step, exact=mean)

    def commit(self, server: ServerState, proposal: Proposal, decoded: Sums) -> ServerState:
        return server.with_({"last": decoded})


def test_anyone_writes_a_strategy_in_a_few_lines() -> None:
    one = served(Dampened, 2, share=0.25)
    with task_identity():
        for number in (1, 2):
            train(one, number, {0: number, 1: 5 + number})
    means = [float64_mean([(state(number), 1 / 3), (state(5 + number), 2 / 3)]) for number in (1, 2)]
    assert off(folded(one), {name: 0.75 * means[0][name] + means[1][name] for name in SHAPES}) < 1e-6
    with pytest.raises(ConfigError, match=r"Dampened\.share must be .*at most 1"):
        Dampened(share=2.0)
