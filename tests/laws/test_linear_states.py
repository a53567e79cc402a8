"""Laws of plain averaging over states that are expanded, and of a rotating basis.

The other route: NumPy in float64, from the frames, with what is frozen drawn or solved for by hand.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from cameras import GRID, answer, reply, roster
from flwr.app import ArrayRecord, ConfigRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard
from torch import Tensor, nn

from fed_lorac.adapters.aad import AdditiveDecomposition
from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.ffa_lora_c import FfaLoraC
from fed_lorac.adapters.filter_atoms import FilterAtoms
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.adapters.lora_xs import LoraXs
from fed_lorac.adapters.mask import Mask
from fed_lorac.adapters.norm_affine import NormAffine
from fed_lorac.adapters.subspace import Subspace
from fed_lorac.adapters.vera_b import VeraB
from fed_lorac.aggregation.aggregators import Krum, Median
from fed_lorac.aggregation.delta_sum import DeltaSum
from fed_lorac.aggregation.server_optimizers import Adam, Momentum, ServerOptimizer, Sgd
from fed_lorac.config import Config
from fed_lorac.errors import ConfigError, FactorError
from fed_lorac.models import build
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.seeds import torch_stream
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.server.rules import FleetRules
from fed_lorac.server.strategy import FrameSpec, Strategy
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.updates import global_fingerprint
from strategies.fedavg import FedAvg
from strategies.merged import MergedFedAvg
from strategies.rotating_basis import RotatingBasis

SEED = 7
RANK, SCALE = 2, 3.0
State = Mapping[str, Tensor]
Dense = dict[str, np.ndarray]
ADAPTERS: dict[str, Adapter] = {
    "ffa-lora-c": FfaLoraC(RANK, SCALE * RANK),
    "aad": AdditiveDecomposition(RANK, SCALE * RANK),
    "filter-atoms": FilterAtoms(atoms=6, kc=4),
    "lora-xs": LoraXs(rank=3, lr_scale=4.0),
    "lora-xs drawn": LoraXs(rank=3, bases="drawn"),
    "vera-b": VeraB(inner=5, lr_scale=4.0),
    "subspace": Subspace(dimension=60, lr_scale=4.0),
    "mask": Mask(dropped=0.25),
}
PLAIN = [(FedAvg, method) for method in ADAPTERS if method != "lora-xs drawn"]
EXACT = [*PLAIN, *((RotatingBasis, own) for own in ("ffa-lora-c", "aad", "lora-xs drawn", "vera-b", "subspace"))]
each = pytest.mark.parametrize(("make", "method"), EXACT)
Kind = type[Strategy]


@pytest.fixture(autouse=True, scope="module")
def identity() -> Iterator[None]:
    with task_identity():
        yield


def network() -> nn.Module:
    return build("resnet8", width=4, generator=torch_stream(0, "model")).eval()


CONVS = {n: m.weight.detach() for n, m in network().named_modules() if isinstance(m, nn.Conv2d)}
del CONVS[next(iter(CONVS))]


def by_hand(method: str, state: State, round: int, *, rank: int = RANK, seed: int = SEED) -> Dense:
    """What a state says, by tensor name, R = r*K."""
    sent = {key: tensor.numpy().astype(np.float64) for key, tensor in state.items()}
    draw = torch_stream(seed, "adapter", round)
    found = {key: value for key, value in sent.items() if key.rpartition(".")[0] not in CONVS}
    for name, weight in CONVS.items():
        out, in_, k, _ = weight.shape
        if method == "filter-atoms":
            found[f"{name}.weight"] = atoms_by_hand(name, sent)
            continue
        if method in CORES:
            found[f"{name}.weight"] = CORES[method](name, sent, draw).reshape(weight.shape)
            continue
        A = _uniform((rank * k, in_ * k), in_ * k, draw)
        view = sent[f"{name}.B"] @ A if method == "ffa-lora-c" else sent[f"{name}.L"] @ A
        if method == "aad":
            view = view + _uniform((out * k, rank * k), in_ * k, draw) @ sent[f"{name}.R"]
        found[f"{name}.weight"] = SCALE * view.reshape(weight.shape)
    return found


def core_by_hand(name: str, sent: Dense, draw: torch.Generator) -> np.ndarray:
    """U S V, by the subspace iteration in NumPy."""
    out, in_, k, _ = CONVS[name].shape
    W = CONVS[name].numpy().astype(np.float64).reshape(out * k, in_ * k)
    own, u = torch_stream(0, "lora-xs", name), min(3, *W.shape)
    start, left, right = (
        torch.randn(n, u, dtype=torch.float64, generator=own).numpy() for n in (in_ * k, out * k, in_ * k)
    )
    U = _on_the_side(W @ start, left)
    for _ in range(10):
        U = _on_the_side(W @ _on_the_side(W.T @ U, right), left)
    return np.asarray(2 * U @ sent[f"{name}.S"] @ _on_the_side(W.T @ U, right).T)


def _on_the_side(columns: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Gram and Schmidt's, one column after another."""
    made: list[np.ndarray] = []
    for column in (columns / np.linalg.norm(columns) + 1e-7 * apart).T:
        rest = column
        for before in (*made, *made):
            rest = rest - before * (before @ rest)
        made.append(rest / np.linalg.norm(rest))
    return np.stack(made, 1)


def drawn_core_by_hand(name: str, sent: Dense, draw: torch.Generator) -> np.ndarray:
    out, in_, k, _ = CONVS[name].shape
    U, V = (torch.randn(shape, generator=draw).double().numpy() for shape in ((out * k, 3), (3, in_ * k)))
    return np.asarray(U @ sent[f"{name}.S"] @ V) / math.sqrt(out * k * in_ * k)


def vera_by_hand(name: str, sent: Dense, draw: torch.Generator) -> np.ndarray:
    out, in_, k, _ = CONVS[name].shape
    A0, B0 = (torch.randn(shape, generator=draw).double().numpy() for shape in ((5, in_ * k), (out * k, 5)))
    return np.asarray(2 * np.diag(sent[f"{name}.b"]) @ B0 @ A0 / math.sqrt(5 * in_ * k))


def spread_by_hand(name: str, sent: Dense, draw: torch.Generator) -> np.ndarray:
    """A layer's rows of one P, of SciPy's Hadamard matrices."""
    z, n = sent["layer1.0.conv1.z"], CONVS[name].numel()
    left, right = (torch.randint(0, 2, (math.ceil(n / 64), 64), generator=draw).numpy() * 2.0 - 1 for _ in range(2))
    P = np.concatenate([np.diag(a) @ hadamard(64) @ np.diag(b) for a, b in zip(left, right, strict=True)])[:n]
    return np.asarray(2 * P[:, :60] @ z / math.sqrt(sum(weight.numel() for weight in CONVS.values())))


CORES: dict[str, Callable[[str, Dense, torch.Generator], np.ndarray]] = {
    "lora-xs": core_by_hand,
    "lora-xs drawn": drawn_core_by_hand,
    "vera-b": vera_by_hand,
    "subspace": spread_by_hand,
    "mask": lambda name, sent, draw: -CONVS[name].numpy().astype(np.float64) / 0.75 * sent[f"{name}.p"],
}


def _uniform(shape: tuple[int, int], fan_in: int, draw: torch.Generator) -> np.ndarray:
    bound = 1 / math.sqrt(fan_in)
    found: np.ndarray = torch.empty(shape).uniform_(-bound, bound, generator=draw).numpy()
    return found.astype(np.float64)


def atoms_by_hand(name: str, sent: Dense) -> np.ndarray:
    """alpha x delta D, alpha by least squares over the atoms that the base's kernels are decomposed in."""
    atoms = fit_to().codes[name].atoms.numpy().astype(np.float64)  # type: ignore[index]
    k, weight = atoms.shape[-1], CONVS[name].numpy().astype(np.float64)
    out, in_ = weight.shape[:2]
    kernels = weight.reshape(-1, k * k)
    if weight.shape[-1] == 1:  # (o, a), (i, b) -> kernels (o, i) of a by b
        kernels = np.array(
            [weight[o * k : (o + 1) * k, i * k : (i + 1) * k, 0, 0] for o in range(out // k) for i in range(in_ // k)]
        ).reshape(-1, k * k)
    alpha = np.linalg.lstsq(atoms.reshape(len(atoms), -1).T, kernels.T, rcond=None)[0].T
    moved = sent[f"{name}.D" if weight.shape[-1] > 1 else f"{name}.Dc"]
    change = np.asarray(alpha @ moved.reshape(len(atoms), -1))
    if weight.shape[-1] > 1:
        return change.reshape(weight.shape)
    blocks = change.reshape(out // k, in_ // k, k, k)
    return np.block([[blocks[o, i] for i in range(in_ // k)] for o in range(out // k)])[:, :, None, None]


@lru_cache
def fit_to() -> FilterAtoms:
    found = ADAPTERS["filter-atoms"].fit_to(network())
    assert isinstance(found, FilterAtoms)
    return found


@lru_cache
def spec(make: Kind, method: str) -> FrameSpec:
    return FrameSpec.for_model(network(), ADAPTERS[method], seed=SEED, rotates=make.rotates)


def strategy(
    make: Kind, method: str, cameras: int, *, draw: Callable[[int], Sequence[int]] | None = None, **own: Any
) -> FrameStrategy:
    return FrameStrategy(make(**own), spec(make, method), rules=FleetRules(roster=roster(cameras), draw=draw))


def drawn(method: str, seed: int) -> dict[str, Tensor]:
    """What a camera of this seed sends."""
    draw = torch_stream(seed, "state")
    template = spec(FedAvg, method).template
    return {name: torch.randn(shape, generator=draw) for name, shape in template.items()}


def play(
    one: FrameStrategy, round: int, states: Sequence[State], examples: Sequence[int], order: Sequence[int] = ()
) -> None:
    """One round; camera k sends `states[k]`, and they arrive in `order`."""
    list(one.configure_train(round, ArrayRecord(), ConfigRecord(), GRID))
    tag = global_fingerprint(one.spec.base, one.folded_round)
    answers = [
        reply(k, answer(encode(state, dtype="fp32", base=tag), num_examples=examples[k]))
        for k, state in enumerate(states)
    ]
    one.aggregate_train(round, [answers[k] for k in order or range(len(states))])


def said(one: FrameStrategy, method: str, *, changes: bool = False) -> list[Dense]:
    """What each update says; `changes`: they are changes already, dense."""
    found, before = [], 0
    for update in one.updates:
        state = decode(update.frame, base=global_fingerprint(one.spec.base, before))
        dense = {name: tensor.numpy().astype(np.float64) for name, tensor in state.items()}
        found.append(dense if changes else by_hand(method, state, update.round if one.strategy.rotates else 0))
        before = update.round
    return found


def mean(changes: Sequence[Dense], weights: Sequence[float]) -> Dense:
    return {
        name: sum((w * change[name] for w, change in zip(weights, changes, strict=True)), np.zeros(()))
        for name in changes[0]
    }


def off(found: Dense, expected: Dense) -> float:
    """Relative Frobenius distance over all tensors together."""
    assert found.keys() == expected.keys()
    distance = math.hypot(*(float(np.linalg.norm(found[n] - expected[n])) for n in expected))
    return distance / math.hypot(*(float(np.linalg.norm(expected[n])) for n in expected))


@each
def test_one_camera_comes_back_as_it_was(make: Kind, method: str) -> None:
    one = strategy(make, method, 1)
    for round in (1, 2):
        play(one, round, [drawn(method, round)], [100])
        now = round if one.strategy.rotates else 0
        assert off(said(one, method)[-1], by_hand(method, drawn(method, round), now)) < 1e-6


@each
def test_equal_cameras_are_a_fixed_point(make: Kind, method: str) -> None:
    one = strategy(make, method, 3)
    play(one, 1, [drawn(method, 1)] * 3, [10, 200, 3])
    assert off(said(one, method)[0], by_hand(method, drawn(method, 1), int(one.strategy.rotates))) < 1e-6


@each
@settings(max_examples=8)
@given(cameras=st.lists(st.tuples(st.integers(0, 99), st.integers(1, 1000)), min_size=2, max_size=5))
def test_the_update_says_the_mean_of_what_cameras_said(make: Kind, method: str, cameras: list[tuple[int, int]]) -> None:
    one, states, examples = strategy(make, method, len(cameras)), *zip(*cameras, strict=True)
    play(one, 1, [drawn(method, seed) for seed in states], examples)
    changes = [by_hand(method, drawn(method, seed), int(one.strategy.rotates)) for seed in states]
    assert off(said(one, method)[0], mean(changes, [n / sum(examples) for n in examples])) < 1e-6
    assert one.report.aggregation_error < 1e-6


@each
def test_weights_matter_and_the_order_of_cameras_does_not(make: Kind, method: str) -> None:
    states = [drawn(method, k) for k in range(3)]
    runs = [strategy(make, method, 3) for _ in range(3)] + [strategy(make, method, 3, draw=lambda round: [2, 0, 1])]
    play(runs[0], 1, states, [1, 10, 100])
    play(runs[1], 1, states, [100, 10, 1])
    play(runs[2], 1, states, [1, 10, 100], order=[2, 0, 1])
    play(runs[3], 1, states, [1, 10, 100])
    first, other, _, drawn_otherwise = (said(one, method)[0] for one in runs)
    assert off(other, first) > 0.5
    assert runs[2].updates == runs[0].updates
    assert off(drawn_otherwise, first) < 1e-6


@each
def test_arrays_that_were_given_are_kept_current(make: Kind, method: str) -> None:
    """The server expands states as cameras do, by the round's basis."""
    one = strategy(make, method, 1)
    start = network().state_dict()
    arrays = ArrayRecord(start)
    expected = {name: start[name].numpy().astype(np.float64) for name in by_hand(method, drawn(method, 0), 0)}
    for round in (1, 2):
        list(one.configure_train(round, arrays, ConfigRecord(), GRID))
        frame = encode(drawn(method, round), dtype="fp32", base=global_fingerprint(one.spec.base, one.folded_round))
        now, _ = one.aggregate_train(round, [reply(0, answer(frame))])
        assert now is not None
        arrays = now
        change = by_hand(method, drawn(method, round), round if one.strategy.rotates else 0)
        expected = {name: value + change[name] for name, value in expected.items()}
    found = arrays.to_torch_state_dict()
    assert off({name: found[name].numpy() for name in expected}, expected) < 1e-6


@pytest.mark.parametrize(("make", "method"), PLAIN)
@pytest.mark.parametrize("how", [Sgd(0.5), Momentum(0.5, beta=0.8)])
def test_fedavg_folds_what_merged_and_dense_folds(make: Kind, method: str, how: ServerOptimizer) -> None:
    """The same frames by both roads; moments of mean states are moments of mean changes, and v <- beta v + M."""
    plain = strategy(make, method, 3, server_optimizer=how)
    merged = strategy(MergedFedAvg, method, 3, server_optimizer=how, downlink="dense")
    velocity: Dense = {}
    for round in (1, 2, 3):
        states = [drawn(method, 10 * round + k) for k in range(3)]
        for one in (plain, merged):
            play(one, round, states, [1, 2, 3])
        now = mean([by_hand(method, state, 0) for state in states], [1 / 6, 2 / 6, 3 / 6])
        keeps = 0.8 if velocity and isinstance(how, Momentum) else 0.0
        velocity = {name: keeps * velocity.get(name, 0.0) + value for name, value in now.items()}
        assert off(said(plain, method)[-1], mean([velocity], [0.5])) < 1e-6
    for ours, theirs in zip(said(plain, method), said(merged, method, changes=True), strict=True):
        assert off(ours, theirs) < 1e-6
    assert plain.report.aggregation_error < 1e-6


def test_moments_over_states_survive_a_resume() -> None:
    how, method = Momentum(), "ffa-lora-c"
    whole, cut = (strategy(FedAvg, method, 2, server_optimizer=how) for _ in range(2))
    for one in (whole, cut):
        play(one, 1, [drawn(method, 1), drawn(method, 2)], [1, 2])
    resumed = strategy(FedAvg, method, 2, server_optimizer=how)
    sums = {
        kind: {name: DeltaSum.of_parts(total.parts()) for name, total in totals.items()}
        for kind, totals in cut.sums.items()
    }
    resumed.resume(cut.updates, cut.confirmed, sums, {})
    for one in (whole, resumed):
        play(one, 2, [drawn(method, 3), drawn(method, 4)], [1, 2])
    assert whole.updates == resumed.updates


@pytest.mark.parametrize(
    ("own", "method", "what"),
    [
        (FedAvg(server_optimizer=Adam()), "ffa-lora-c", "Adam"),
        (FedAvg(aggregator=Median()), "aad", "Median"),
        (FedAvg(aggregator=Krum()), "filter-atoms", "Krum"),
    ],
)
def test_a_server_that_leaves_no_state_is_refused(own: Strategy, method: str, what: str) -> None:
    with pytest.raises(ConfigError, match=f"{what} acts on deltas, and its result cannot be written as a state"):
        FrameStrategy.for_model(own, network(), ADAPTERS[method])


@pytest.mark.parametrize("own", [FedAvg(aggregator=Krum()), FedAvg(server_optimizer=Adam())])
def test_what_acts_on_deltas_may_act_on_states_that_are_deltas(own: Strategy) -> None:
    assert own.refuses(NormAffine()) is None


@pytest.mark.parametrize("own", [FedAvg(), RotatingBasis()])
@pytest.mark.parametrize("adapter", [LoraC(2, 4.0), FilterAtoms(atoms=6, kc=4, m1=3)])
def test_an_adapter_that_is_not_linear_is_refused(own: Strategy, adapter: Adapter) -> None:
    with pytest.raises(ConfigError, match="linear"):
        FrameStrategy.for_model(own, network(), adapter)


@pytest.mark.parametrize("wrong", ["nothing", "another rank"])
def test_a_state_of_another_shape_is_not_expanded(wrong: str) -> None:
    sent = drawn("ffa-lora-c", 1)
    name = next(iter(CONVS))
    if wrong == "nothing":
        del sent[f"{name}.B"]
    else:
        sent[f"{name}.B"] = sent[f"{name}.B"][:, 1:]
    with pytest.raises(FactorError, match=rf"{name}' .*'B': \([0-9]+, 6\)"):
        ADAPTERS["ffa-lora-c"].to_delta(network(), torch_stream(SEED, "adapter", 0))(sent)


def test_a_rotating_basis_needs_one_to_rotate() -> None:
    for adapter in (NormAffine(), FilterAtoms(atoms=6, kc=4)):
        with pytest.raises(ConfigError, match="draws and freezes"):
            FrameStrategy.for_model(RotatingBasis(), network(), adapter)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"strategy.name": "rotating-basis", "codec.error_feedback": True, "codec.up": "int8"}, "basis is drawn anew"),
        (
            {"strategy.name": "fedavg", "adapter.method": "aad", "strategy.server_optimizer": "yogi"},
            "Yogi acts on deltas",
        ),
        ({"strategy.name": "fedavg", "adapter.method": "filter-atoms", "strategy.aggregator": "krum"}, "Krum acts on"),
        ({"strategy.name": "fedavg", "adapter.method": "ffa-lora-c", "adapter.rank": "1, 2"}, "must be of one rank"),
        ({"strategy.name": "rotating-basis", "adapter.rank": "1, 2"}, "must be of one rank"),
        ({"strategy.name": "merged", "adapter.method": "aad", "adapter.rank": "1, 2"}, "must be of one rank"),
    ],
)
def test_configs_that_make_no_sense_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Config.from_flat(changes)


def shares(model: str, rank: int, mode: str) -> tuple[float, float]:
    """Bytes of FFA's values over those of LoRA-C's: off networks, and by the formula (out*K R + ends) /
    ((out*K + in*K) R + ends)."""
    counts = []
    for adapter in (FfaLoraC(rank, 2.0, mode), LoraC(rank, 2.0, mode)):
        net = build(model)
        adapter.attach(net, torch_stream(0, "adapter"))
        counts.append(sum(tensor.numel() for tensor in adapter.read(net).values()))
    convs = [m for m in build(model).modules() if isinstance(m, nn.Conv2d)]
    ends = convs[0].weight.numel() + list(build(model).modules())[-1].weight.numel()  # type: ignore[union-attr,operator]
    sides = [
        (c.out_channels * k, c.in_channels * k, rank * (k if mode == "r*k" else 1))
        for c in convs[1:]
        for k in c.kernel_size[:1]
    ]
    b, both = (sum(R * size for *sizes, R in sides for size in sizes[:n]) for n in (1, 2))
    return counts[0] / counts[1], (b + ends) / (both + ends)


@pytest.mark.parametrize(
    ("model", "mode", "expected"),
    [
        ("resnet8", "r*k", 0.6187),
        ("resnet8", "r", 0.6936),
        ("resnet20", "r*k", 0.5412),
        ("resnet20", "r", 0.5797),
        ("resnet18", "r*k", 0.5566),
        ("resnet18", "r", 0.5985),
    ],
)
def test_the_share_of_lora_cs_bytes_is_the_formulas(model: str, mode: str, expected: float) -> None:
    found, formula = shares(model, 2, mode)
    assert found == formula == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("mode", ["r*k", "r"])
def test_the_thin_route_has_the_dense_ones_gradients_where_a_is_frozen(mode: str) -> None:
    """By both routes, and by hand: B's gradient is scale * G A', with G the dense weight's; A has none."""
    x = torch.randn(2, 3, 12, 12, generator=torch_stream(0, "x"), dtype=torch.float64)
    found = {}
    for route in ("dense", "thin"):
        model = network().double()
        adapter = FfaLoraC(rank=2, alpha=6.0, rank_mode=mode, route=route)
        adapter.attach(model, torch_stream(0, "A"))
        draw = torch_stream(0, "B")
        for p in model.parameters():
            if p.requires_grad:
                p.data += 0.1 * torch.randn(p.shape, generator=draw, dtype=p.dtype)
        own = x.clone().requires_grad_()
        model(own).square().sum().backward()
        layers = {n: m for n, m in model.named_modules() if n in CONVS}
        assert all(m.A.grad is None and not m.A.requires_grad for m in layers.values())
        found[route] = {n: m.B.grad for n, m in layers.items()} | {"x": own.grad}
    for name, gradient in found["dense"].items():
        assert gradient.norm() > 0
        torch.testing.assert_close(found["thin"][name], gradient)
    merged = adapter.merge(model)
    merged.requires_grad_(True)(x).square().sum().backward()
    for name, layer in layers.items():
        G = merged.get_parameter(f"{name}.weight").grad
        assert G is not None
        view = G.reshape(layer.B.shape[0], layer.A.shape[1])
        torch.testing.assert_close(found["thin"][name], 3.0 * view @ layer.A.T)
