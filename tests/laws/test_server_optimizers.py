"""Laws of the server's optimizers: each by hand in float64, over rounds, and through a whole run."""

import numpy as np
import pytest
import torch

from fed_lorac.aggregation.delta_sum import DeltaSum, Sums
from fed_lorac.aggregation.server_optimizers import Adam, Moments, Momentum, ServerOptimizer, Sgd, Yogi
from fed_lorac.config import Config
from fed_lorac.errors import ConfigError

SHAPE = (6, 4, 3, 3)
ROUNDS = 4


def mean(round: int) -> Sums:
    """A round's mean: factors of one tensor, a dense change of another."""
    draw = torch.Generator().manual_seed(round)
    A, B = torch.randn(2, 12, generator=draw), torch.randn(18, 2, generator=draw)
    return {
        "conv.weight": DeltaSum(SHAPE).add_pair(A, B, 0.5),
        "fc.bias": DeltaSum((5,)).add_dense(torch.randn(5, generator=draw), 1.0),
    }


def steps(how: ServerOptimizer) -> list[dict[str, np.ndarray]]:
    moments: Moments = {}
    found = []
    for round in range(ROUNDS):
        moved, moments = how.step(mean(round), moments)
        found.append({name: total.dense().numpy().astype(np.float64) for name, total in moved.items()})
    return found


def by_hand(how: ServerOptimizer) -> list[dict[str, np.ndarray]]:
    """The papers' recursions, elementwise on dense arrays."""
    m: dict[str, np.ndarray] = {}
    v: dict[str, np.ndarray] = {}
    found = []
    for round in range(ROUNDS):
        moved = {}
        for name, total in mean(round).items():
            M = total.dense().numpy().astype(np.float64)
            before, second = m.get(name, np.zeros_like(M)), v.get(name, np.zeros_like(M))
            if isinstance(how, Sgd):
                moved[name] = how.lr * M
            elif isinstance(how, Momentum):
                m[name] = how.beta * before + M
                moved[name] = how.lr * m[name]
            else:
                assert isinstance(how, Adam | Yogi)
                m[name] = how.beta1 * before + (1 - how.beta1) * M
                if isinstance(how, Adam):
                    v[name] = how.beta2 * second + (1 - how.beta2) * M**2
                else:
                    v[name] = second - (1 - how.beta2) * M**2 * np.sign(second - M**2)
                moved[name] = how.lr * m[name] / (np.sqrt(v[name]) + how.tau)
        found.append(moved)
    return found


@pytest.mark.parametrize("how", [Sgd(0.3), Momentum(0.3), Adam(0.3), Yogi(0.3)])
def test_steps_are_the_papers(how: ServerOptimizer) -> None:
    for found, expected in zip(steps(how), by_hand(how), strict=True):
        assert found.keys() == expected.keys()
        for key in found:
            assert np.allclose(found[key], expected[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", [Sgd(), Momentum(beta=0.0)])
def test_sgd_takes_the_mean_and_so_does_momentum_zero(how: ServerOptimizer) -> None:
    for round, found in enumerate(steps(how)):
        assert all(np.array_equal(found[key], total.dense().numpy()) for key, total in mean(round).items())


def test_momentum_keeps_factors_while_they_are_thin() -> None:
    moments: Moments = {}
    for round in range(2):
        moved, moments = Momentum().step(mean(round), moments)
    assert moved["conv.weight"].rows == 4 and moved["conv.weight"].factors() is not None


@pytest.mark.parametrize("how", [Sgd(), Momentum(), Adam(), Yogi()])
def test_what_comes_is_left_as_it_is(how: ServerOptimizer) -> None:
    one, moments = mean(0), how.step(mean(1), {})[1]
    came = [total for sums in (one, *moments.values()) for total in sums.values()]
    before = [total.dense() for total in came]
    how.step(one, moments)
    assert all(torch.equal(total.dense(), then) for total, then in zip(came, before, strict=True))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="server_optimizer has no meaning under"):
        Config.from_flat({"strategy.name": "factor-fedavg", "strategy.server_optimizer": "adam"})
    with pytest.raises(ConfigError, match="no stack of factors is left"):
        Config.from_flat({"strategy.merged.downlink": "stack", "strategy.server_optimizer": "yogi"})
    assert Config.from_flat({"strategy.merged.downlink": "stack", "strategy.server_optimizer": "momentum"})
    with pytest.raises(ConfigError, match=r"Adam\.beta2 must be .*below 1"):
        Adam(beta2=1.0)
    with pytest.raises(ConfigError, match=r"Sgd\.lr must be .*above 0"):
        Sgd(0.0)
