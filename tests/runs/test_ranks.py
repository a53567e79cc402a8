"""Laws of fleets whose cameras differ in rank: flora's stacks, merged deltas, and flexlora's factors by rank.

The other route: FlexLoRA by hand, in NumPy and float64, from the frames that cameras send.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cameras import BASE, GRID, SHAPES, VIEW, answer, float64_mean, folded, off, reply, served, state
from flwr.app import ArrayRecord, ConfigRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupted import Ended, check_equal
from overheard import Overheard, overheard
from safetensors.torch import load_file
from small_runs import rows, tiny
from torch import Tensor, nn

from fed_lorac.adapters.aad import AdditiveDecomposition
from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.algebra.factors import rank_rows, view_of
from fed_lorac.adapters.branched import BranchAdapter
from fed_lorac.adapters.conv_lora import ConvLora
from fed_lorac.adapters.deltas import initial_state
from fed_lorac.adapters.ffa_lora_c import FfaLoraC
from fed_lorac.adapters.full import FullFineTuning
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.adapters.norm_affine import NormAffine
from fed_lorac.adapters.parts import Parts
from fed_lorac.aggregation.aggregators import ClippedMean, Median, TrimmedMean
from fed_lorac.aggregation.delta_sum import DeltaSum, Sums
from fed_lorac.aggregation.server_optimizers import Adam
from fed_lorac.client.agreement import frame_spec
from fed_lorac.client.local_update import local_updates
from fed_lorac.client.state import ClientState, GlobalModel, fold_updates
from fed_lorac.config import Config
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.seeds import torch_stream
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.server.strategy import Strategy
from fed_lorac.simulation.engines import run
from fed_lorac.wire.frame import decode, encode, inspect
from fed_lorac.wire.template import Template
from fed_lorac.wire.updates import global_fingerprint, personal_fingerprint
from strategies.clustered import ClusteredFedAvg
from strategies.factor_fedavg import FactorFedAvg
from strategies.fedavg import FedAvg
from strategies.flexlora import FlexLora
from strategies.flora import Flora
from strategies.local_only import LocalOnly
from strategies.merged import MergedFedAvg
from strategies.rotating_basis import RotatingBasis

RANKS = (1, 2, 4)  # camera k has RANKS[k % 3] rows
SCALE = 2.0
State = Mapping[str, Tensor]
Kind = type[Strategy]


@pytest.fixture(autouse=True, scope="module")
def identity() -> Iterator[None]:
    with task_identity():
        yield


def rank_of(camera: int) -> int:
    return RANKS[camera % len(RANKS)]


def template(rank: int) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state(0, rank).items()}


def strategy(make: Kind, cameras: int, *, unequal: bool = True, **changes: Any) -> FrameStrategy:
    if unequal:
        changes["template_of"] = lambda camera: template(rank_of(camera))
    return served(make, cameras, template=template(4), scale=SCALE, **changes)


def play(
    one: FrameStrategy, round: int, states: Mapping[int, State], examples: Sequence[int], order: Sequence[int] = ()
) -> None:
    """One round; camera k sends `states[k]`, and they arrive in `order`."""
    list(one.configure_train(round, ArrayRecord(), ConfigRecord(), GRID))
    tag = global_fingerprint(BASE, one.folded_round)
    answers = {
        k: reply(k, answer(encode(said, dtype="fp32", base=tag), num_examples=examples[k]))
        for k, said in states.items()
    }
    one.aggregate_train(round, [answers[k] for k in order or states])


def fleet(round: int, cameras: int) -> dict[int, State]:
    return {k: state(100 * round + k, rank_of(k)) for k in range(cameras)}


def weighted(states: Mapping[int, State], examples: Sequence[int]) -> list[tuple[dict[str, Tensor], float]]:
    total = sum(examples[k] for k in states)
    return [(dict(said), examples[k] / total) for k, said in states.items()]


def test_flora_is_merged_with_the_stack_on_the_way_down() -> None:
    flora, merged = strategy(Flora, 3), strategy(MergedFedAvg, 3, downlink="stack")
    for one in (flora, merged):
        for round in (1, 2):
            play(one, round, fleet(round, 3), [1, 2, 3])
    assert flora.updates == merged.updates
    assert inspect(flora.updates[0].frame).shapes["conv.A"] == (sum(RANKS), VIEW[1])


@pytest.mark.parametrize("make", [Flora, MergedFedAvg])
@settings(max_examples=15)
@given(examples=st.lists(st.integers(1, 1000), min_size=1, max_size=6))
def test_merged_deltas_of_any_ranks_are_averaged_exactly(make: Kind, examples: list[int]) -> None:
    """Before the downlink: what svd leaves out is kept, and flora leaves out nothing."""
    one, states = strategy(make, len(examples)), fleet(1, len(examples))
    play(one, 1, states, examples)
    kept = one.sums.get("residual", {})
    owed = {name: kept[name].dense().numpy() if name in kept else 0.0 for name in SHAPES}
    found = {name: change + owed[name] for name, change in folded(one).items()}
    assert off(found, float64_mean(weighted(states, examples), SCALE)) < 1e-6
    assert make is MergedFedAvg or one.report.aggregation_error < 1e-6


def test_svd_sends_the_highest_rank_of_the_fleet() -> None:
    one = strategy(MergedFedAvg, 3)
    play(one, 1, fleet(1, 3), [1, 2, 3])
    assert inspect(one.updates[0].frame).shapes["conv.A"] == (4, VIEW[1])


# FlexLoRA


class ByHand:
    """FlexLoRA of one convolution: the weighted mean of products, then of that the nearest of each rank."""

    def __init__(self) -> None:
        self.mean = np.zeros(VIEW)
        self.dense: dict[str, np.ndarray] = {}

    def round(self, states: Mapping[int, State], examples: Sequence[int]) -> None:
        exact = float64_mean(weighted(states, examples), SCALE)
        self.mean = exact.pop("conv.weight").reshape(VIEW)
        self.dense = exact

    def nearest(self, rank: int) -> np.ndarray:
        u, s, vh = np.linalg.svd(self.mean)
        return np.asarray((u[:, :rank] * s[:rank]) @ vh[:rank])

    def error(self, ranks: Sequence[int]) -> float:
        """The root mean square over the cameras of what a rank leaves out, over the norm of all."""
        size = math.hypot(np.linalg.norm(self.mean), *(float(np.linalg.norm(d)) for d in self.dense.values()))
        lost = [np.linalg.norm(self.mean - self.nearest(rank)) / size for rank in ranks]
        return float(np.sqrt(np.mean(np.square(lost))))


def product(
    frame: bytes, base: str = BASE, scale: float = SCALE, templates: Sequence[Template] = ()
) -> dict[str, np.ndarray]:
    """The products that a camera's own factors make, by layer, in their view."""
    state = decode(frame, base=personal_fingerprint(base), templates=templates)
    own = {key: t.numpy().astype(np.float64) for key, t in state.items()}
    return {key[:-2]: scale * own[f"{key[:-2]}.B"] @ own[key] for key in own if key.endswith(".A")}


def told(one: FrameStrategy, camera: int) -> bytes:
    own = one.personal_update(camera)
    assert own is not None and own.round == one.folded_round
    return own.frame


def restored(sums: Mapping[str, Sums]) -> dict[str, Sums]:
    """As out of a checkpoint."""
    return {
        kind: {name: DeltaSum.of_parts(total.parts()) for name, total in totals.items()}
        for kind, totals in sums.items()
    }


def close(found: np.ndarray, expected: np.ndarray, to: float = 1e-6) -> bool:
    return bool(np.linalg.norm(found - expected) <= to * np.linalg.norm(expected))


def test_flexlora_is_flexlora_by_hand() -> None:
    """Rounds replace one another where factors live on, and add up beside them."""
    one, hand, examples = strategy(FlexLora, 5), ByHand(), [1, 2, 3, 4, 5]
    assert one.personal_update(0) is None
    total = {name: np.zeros(shape) for name, shape in SHAPES.items() if name != "conv.weight"}
    for round in (1, 2, 3):
        states = {k: said for k, said in fleet(round, 5).items() if k != round}  # one does not answer
        play(one, round, states, examples)
        hand.round(states, examples)
        for camera in range(5):
            frame = told(one, camera)
            assert inspect(frame).shapes["conv.A"] == (rank_of(camera), VIEW[1])
            assert close(product(frame)["conv"], hand.nearest(rank_of(camera)))
        assert set(inspect(one.updates[-1].frame).shapes) == set(total)
        total = {name: value + hand.dense[name] for name, value in total.items()}
        assert math.isclose(one.report.aggregation_error, hand.error([1, 2, 4, 1, 2]), rel_tol=1e-5)
        assert close(one.not_in_updates()["conv.weight"].dense().numpy().reshape(VIEW), hand.mean)
    assert all(close(folded(one)[name], value) for name, value in total.items())


@pytest.mark.parametrize("equal", [1, 3])
def test_flexlora_gives_one_camera_or_equal_ones_their_own_back(equal: int) -> None:
    one = strategy(FlexLora, equal, unequal=False)
    play(one, 1, {k: state(1, 4) for k in range(equal)}, [5, 1, 30])
    assert close(product(told(one, 0))["conv"], SCALE * (state(1, 4)["conv.B"] @ state(1, 4)["conv.A"]).numpy())
    assert one.report.aggregation_error < 1e-6


@settings(max_examples=8)
@given(order=st.permutations(range(4)))
def test_weights_matter_to_flexlora_and_the_order_of_cameras_does_not(order: list[int]) -> None:
    runs = [strategy(FlexLora, 4) for _ in range(3)]
    play(runs[0], 1, fleet(1, 4), [1, 2, 3, 40])
    play(runs[1], 1, fleet(1, 4), [1, 2, 3, 40], order)
    play(runs[2], 1, fleet(1, 4), [40, 3, 2, 1])
    first, again, other = (([u.frame for u in one.updates], told(one, 1)) for one in runs)
    assert first == again
    assert np.linalg.norm(product(first[1])["conv"] - product(other[1])["conv"]) > 0.1


def test_arrays_are_kept_current_under_flexlora() -> None:
    """W + the last mean of products + all that was folded."""
    one, hand = strategy(FlexLora, 3), ByHand()
    arrays = ArrayRecord({name: torch.ones(shape) for name, shape in SHAPES.items()})
    for round in (1, 2):
        list(one.configure_train(round, arrays, ConfigRecord(), GRID))
        tag = global_fingerprint(BASE, one.folded_round)
        frames = [encode(said, dtype="fp32", base=tag) for said in fleet(round, 3).values()]
        now, _ = one.aggregate_train(round, [reply(k, answer(frame)) for k, frame in enumerate(frames)])
        assert now is not None
        arrays = now
        hand.round(fleet(round, 3), [1, 1, 1])
    found = {name: tensor.numpy() - 1 for name, tensor in arrays.to_torch_state_dict().items()}
    assert np.allclose(found.pop("conv.weight").reshape(VIEW), hand.mean, atol=1e-5)
    assert all(np.allclose(value, folded(one)[name], atol=1e-5) for name, value in found.items())


def test_flexlora_goes_on_from_a_checkpoint_to_the_same_bytes() -> None:
    """The server's part: all it has is its updates and what it keeps."""
    whole = strategy(FlexLora, 3, dtype="int8")
    play(whole, 1, fleet(1, 3), [1, 2, 3])
    resumed = strategy(FlexLora, 3, dtype="int8")
    resumed.resume(whole.updates, {}, restored(whole.sums), {})
    assert [told(resumed, k) for k in range(3)] == [told(whole, k) for k in range(3)]
    for one in (whole, resumed):
        play(one, 2, fleet(2, 3), [1, 2, 3])
    assert whole.updates == resumed.updates and told(resumed, 2) == told(whole, 2)


def test_factors_that_their_dtype_cannot_hold_skip_the_round() -> None:
    one = strategy(FlexLora, 3, dtype="fp16")
    play(one, 1, fleet(1, 3), [1, 2, 3])
    before = ([*one.updates], told(one, 2), one.sums["global"]["conv.weight"].dense())
    huge = {k: {**said, "conv.B": 1e12 * said["conv.B"]} for k, said in fleet(2, 3).items()}
    play(one, 2, huge, [1, 2, 3])
    assert one.report.skipped and {r.reason for r in one.report.replies} == {"the update is refused: overflow"}
    assert (one.updates, told(one, 2)) == before[:2] and torch.equal(
        one.sums["global"]["conv.weight"].dense(), before[2]
    )
    play(one, 3, fleet(3, 3), [1, 2, 3])
    assert [update.round for update in one.updates] == [1, 3]


@pytest.mark.parametrize(
    ("own", "adapter", "why"),
    [
        (FlexLora(), LoraC(2, 4.0, kernel_wise=True), "layer-wise"),
        (FlexLora(), AdditiveDecomposition(2, 4.0), "its own rank"),
        (Flora(), FfaLoraC(2, 4.0), "stacked"),
        (Flora(server_optimizer=Adam()), LoraC(2, 4.0), "no stack of factors"),
        (Flora(aggregator=TrimmedMean()), LoraC(2, 4.0), "no stack of factors"),
        (Flora(aggregator=ClippedMean(noise=0.1)), LoraC(2, 4.0), "no stack of factors"),
        (MergedFedAvg("stack", aggregator=Median()), LoraC(2, 4.0), "no stack of factors"),
        (FactorFedAvg(), FfaLoraC(2, 4.0), "A and B apart"),
        (MergedFedAvg(), FullFineTuning(), "trains every parameter"),
        (ClusteredFedAvg(), FullFineTuning(), "trains every parameter"),
    ],
)
def test_what_a_strategy_cannot_work_with_is_refused(own: Strategy, adapter: Adapter, why: str) -> None:
    assert re.search(why, own.refuses(adapter) or "")
    with pytest.raises(ConfigError, match=why):
        FrameStrategy.for_model(own, nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Linear(2, 2)), adapter)


@pytest.mark.parametrize("own", [FlexLora(), Flora(), MergedFedAvg(), ClusteredFedAvg(), LocalOnly()])
def test_ranks_may_differ_where_products_of_factors_are_averaged(own: Strategy) -> None:
    assert own.refuses_ranks(LoraC(2, 4.0), [1, 2]) is None
    assert "ranks 1, 2 of FfaLoraC" in (own.refuses_ranks(FfaLoraC(2, 4.0), [1, 2]) or "")


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ((NormAffine(end_rank=2), LoraC()), "NormAffine has an end_rank.*, or set end_rank = 0 of NormAffine"),
        ((NormAffine(), FfaLoraC()), "FfaLoraC is over a frozen basis.*, or leave FfaLoraC out"),
        ((LoraC(alpha=8.0, layers="layer1.*"), ConvLora(layers="layer3.*")), "differ in scale.*parts of one scale"),
    ],
)
def test_the_part_that_binds_cameras_to_one_rank_is_named(parts: tuple[BranchAdapter, ...], why: str) -> None:
    assert re.search(why, MergedFedAvg().refuses_ranks(Parts(parts), [1, 2]) or "")


@pytest.mark.parametrize("own", [FactorFedAvg(), FedAvg(), RotatingBasis()])
def test_ranks_are_one_where_factors_are_averaged_apart(own: Strategy) -> None:
    assert own.refuses_ranks(LoraC(2, 4.0), [2, 2]) is None
    assert "must be of one rank" in (own.refuses_ranks(LoraC(2, 4.0), [1, 2]) or "")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"strategy.name": "flexlora", "strategy.server_optimizer": "momentum"}, "optimizer has no meaning under"),
        ({"strategy.name": "flexlora", "strategy.aggregator": "krum"}, "aggregator has no meaning under"),
        ({"strategy.name": "flexlora", "adapter.lora-c.kernel_wise": True}, "A rank is taken of layer-wise factors"),
        ({"strategy.name": "flexlora", "adapter.method": "aad"}, "its own rank"),
        ({"strategy.name": "flexlora", "codec.up": "int8", "codec.error_feedback": True}, "basis is drawn anew"),
        ({"strategy.name": "flora", "strategy.server_optimizer": "yogi"}, "no stack of factors"),
        ({"strategy.name": "flora", "strategy.aggregator": "median"}, "no stack of factors"),
        ({"strategy.name": "flora", "adapter.method": "ffa-lora-c"}, "stacked"),
        ({"strategy.name": "factor-fedavg", "adapter.rank": "1, 2"}, "must be of one rank"),
        ({"adapter.rank": "1, two"}, "a whole number, at least 1"),
        ({"adapter.rank": "0, 2"}, "a whole number, at least 1"),
    ],
)
def test_configs_that_make_no_sense_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Config.from_flat(changes)


@pytest.mark.parametrize("name", ["merged", "flora", "flexlora", "clustered", "local-only"])
def test_ranks_may_differ_where_products_are_averaged_or_none(name: str) -> None:
    assert Config.from_flat({"strategy.name": name, "adapter.rank": "1, 2"}).adapter.ranks == (1, 2)
    assert Config.from_flat({"strategy.name": "rotating-basis", "adapter.rank": "3"}).adapter.ranks == (3,)


# Whole runs: four cameras of ranks 1, 2, 1, 2, three of them a round.
RUN: dict[str, object] = {
    "strategy__name": "flexlora",
    "adapter__rank": "1, 2",
    "adapter__alpha": 4.0,
    "batch_norm__mode": "frozen",
    "fleet__images": 25,
    "fleet__eval_images": 20,
}
CONVS = "layer1.0.conv1", "layer3.0.conv2", "layer3.0.downsample.0"


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Overheard, Experiment]:
    folder = tmp_path_factory.mktemp("flexlora") / "run"
    config = tiny(**(RUN | {"block_size": 1}))
    return folder, overheard(config, folder), build_experiment(config)


def rank_in_run(camera: int) -> int:
    return 1 + camera % 2


def means(heard: tuple[Path, Overheard, Experiment], round: int) -> dict[str, np.ndarray]:
    """The weighted mean of the products that cameras sent in a round, in their view, float64."""
    _, messages, experiment = heard
    found: dict[str, np.ndarray] = {}
    for _, said, weight in messages.states(round, global_fingerprint(experiment.base.fingerprint, round - 1)):
        for key in said:
            if key.endswith(".A"):
                A, B = (said[key[:-1] + side].numpy().astype(np.float64) for side in "AB")
                found[key[:-2]] = found.get(key[:-2], 0.0) + weight * SCALE * B @ A
    return found


def nearest(matrix: np.ndarray, rank: int) -> np.ndarray:
    u, s, vh = np.linalg.svd(matrix)
    return np.asarray((u[:, :rank] * s[:rank]) @ vh[:rank])


def test_each_camera_is_sent_the_truncated_mean(heard: tuple[Path, Overheard, Experiment]) -> None:
    _, messages, experiment = heard
    for round in (1, 2):
        mean = means(heard, round)
        for camera, frame in messages.own(round).items():
            for name, found in product(frame, experiment.base.fingerprint, templates=messages.templates).items():
                k = experiment.base.model.get_parameter(f"{name}.weight").shape[-1]
                expected = nearest(mean[name], rank_rows(rank_in_run(camera), k, "r*k"))
                assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(mean[name]), (round, camera, name)


def test_the_ledger_says_the_root_mean_square_of_what_ranks_leave_out(
    heard: tuple[Path, Overheard, Experiment],
) -> None:
    folder, messages, experiment = heard
    for round, row in enumerate(rows(folder / "rounds.jsonl"), 1):
        mean, base = means(heard, round), experiment.base.fingerprint
        dense = decode(
            messages.updates()[round], base=global_fingerprint(base, round - 1), templates=messages.templates
        )
        size = sum(float(np.linalg.norm(m)) ** 2 for m in (*mean.values(), *(t.numpy() for t in dense.values())))
        lost = [
            sum(
                float(np.linalg.norm(mean[name] - found)) ** 2
                for name, found in product(frame, base, templates=messages.templates).items()
            )
            / size
            for frame in messages.own(round).values()
        ]
        assert len(lost) == 4 and row["aggregation_error"] == pytest.approx(math.sqrt(sum(lost) / 4), rel=1e-4)
        assert row["aggregation_error"] > 1e-4


def test_cameras_are_billed_by_their_rank(heard: tuple[Path, Overheard, Experiment]) -> None:
    folder, messages, experiment = heard
    for row in rows(folder / "cameras.jsonl"):
        camera, round = row["camera"], row["round"]
        own, update = messages.own(round)[camera], messages.updates()[round]
        assert row["downlink_frame_bytes"] == len(own) + len(update)
        if row["status"] == "counted":
            assert row["uplink_frame_bytes"] == len(messages.frames(round)[camera])
        sides = [
            (*view_of(w.shape), rank_rows(rank_in_run(camera), w.shape[-1], "r*k"))
            for name, m in experiment.base.model.named_modules()
            if isinstance(m, nn.Conv2d) and name != "conv1"
            for w in (m.weight,)
        ]
        assert inspect(own).payload_bytes == 4 * sum((p + q) * rank for p, q, rank in sides)
    assert {len(frame) for frame in messages.own(1).values()} == {len(messages.own(1)[k]) for k in (0, 1)}


def test_a_second_round_begins_from_what_the_camera_was_told(heard: tuple[Path, Overheard, Experiment]) -> None:
    """The same frame to the last bit as training that is given the global model and the told factors."""
    _, messages, experiment = heard
    model = fold_updates(experiment, GlobalModel(), [(1, messages.updates()[1])])
    assert messages.frames(2)
    for camera, frame in messages.frames(2).items():
        told = ClientState().with_personal(messages.own(1)[camera])
        assert local_updates(experiment, model, 2, {camera: told})[camera].frame == frame
        assert local_updates(experiment, model, 2, {camera: ClientState()})[camera].frame != frame


@pytest.mark.parametrize("camera", [0, 1])
def test_training_begins_with_the_product_sent_and_draws_the_missing_rows(camera: int) -> None:
    """At a learning rate that moves nothing, what comes out is what went in; A's missing rows are the round's own."""
    config = tiny(**(RUN | {"local__lr": 1e-30, "local__epochs": 0, "local__steps": 1}))
    experiment, few = build_experiment(config), 1
    draw = torch_stream(3, "own")
    own: dict[str, Tensor] = {}
    for name in CONVS:
        p, q = view_of(experiment.base.model.get_parameter(f"{name}.weight").shape)
        own |= {
            f"{name}.A": torch.randn(few, q, generator=draw),
            f"{name}.B": torch.randn(p, few, generator=draw),
        }
    base = experiment.base.fingerprint
    told = ClientState().with_personal(encode(own, dtype="fp32", base=personal_fingerprint(base)))
    found = decode(
        local_updates(experiment, GlobalModel(), 5, {camera: told})[camera].frame,
        base=global_fingerprint(base, 0),
        templates=frame_spec(experiment).templates,
    )
    fresh = torch_stream(config.run.seed, "adapter", 5)
    for name, module in experiment.base.model.named_modules():
        if not isinstance(module, nn.Conv2d) or name == "conv1":
            continue
        p, q = view_of(module.weight.shape)
        rank = rank_rows(rank_in_run(camera), module.weight.shape[-1], "r*k")
        A, B = torch.empty(rank, q).uniform_(-1 / math.sqrt(q), 1 / math.sqrt(q), generator=fresh), torch.zeros(p, rank)
        if name in CONVS:
            A[:few], B[:, :few] = own[f"{name}.A"], own[f"{name}.B"]
        torch.testing.assert_close(found[f"{name}.A"], A)
        torch.testing.assert_close(found[f"{name}.B"], B)


@given(rank=st.integers(1, 6), few=st.integers(1, 6))
def test_factors_of_fewer_rows_have_the_same_product_among_more(rank: int, few: int) -> None:
    own = {key: t for key, t in state(1, min(rank, few)).items() if key.startswith("conv")}
    fresh = {**state(2, rank), "conv.B": torch.zeros(VIEW[0], rank)}
    found = initial_state(own, fresh)
    torch.testing.assert_close(found["conv.B"] @ found["conv.A"], own["conv.B"] @ own["conv.A"])
    assert torch.equal(found["conv.A"][min(rank, few) :], fresh["conv.A"][min(rank, few) :])
    assert torch.equal(found["fc.weight"], fresh["fc.weight"]) and not fresh["conv.B"].any()


def test_the_model_and_each_cameras_part_of_it_are_written(heard: tuple[Path, Overheard, Experiment]) -> None:
    """model.safetensors has the mean of products; with a camera's own change it is what the camera has."""
    folder, messages, experiment = heard
    base, mean = experiment.base.fingerprint, means(heard, 2)
    model, cameras = load_file(folder / "model.safetensors"), load_file(folder / "cameras.safetensors")
    adapter = load_file(folder / "adapter.safetensors")
    for name, weight in experiment.base.model.state_dict().items():
        stem = name.removesuffix(".weight")
        if stem not in mean:
            continue
        expected = weight.numpy() + mean[stem].reshape(weight.shape)
        assert np.allclose(model[name].numpy(), expected, atol=1e-6)
        assert np.allclose(weight.numpy() + change(adapter, name, weight.shape), expected, atol=1e-6)
        for camera, frame in messages.own(2).items():
            part = change(cameras, f"own-{int(cameras[f'own.camera-{camera}'])}.{name}", weight.shape)
            has = weight.numpy() + product(frame, base, templates=messages.templates)[stem].reshape(weight.shape)
            assert np.allclose(model[name].numpy() + part, has, atol=1e-6)


def change(state: State, name: str, shape: Sequence[int]) -> np.ndarray:
    stem = name.removesuffix(".weight")
    if name in state:
        return np.asarray(state[name].numpy())
    return np.asarray((state[f"{stem}.B"] @ state[f"{stem}.A"]).numpy().reshape(shape))


def test_a_run_that_was_interrupted_goes_on_to_the_same_end(tmp_path: Path) -> None:
    faults = {"fleet__devices": "limited", "dropout": 0.2, "availability": 0.8}
    config = tiny(**(RUN | {"run__rounds": 3, "checkpoint_every": 1} | faults))
    run(config, tmp_path / "whole", Watch())
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", Ended(2))
    watch = Ended(0)
    run(config, tmp_path / "cut", watch, resume=True)
    assert watch.came == 2
    check_equal(tmp_path / "cut", tmp_path / "whole")


def test_blocks_of_one_rank_come_out_as_cameras_one_by_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And at once: a block that fails is asked again camera by camera, with a warning."""
    ends = []
    for size in (1, 3):
        run(tiny(**(RUN | {"block_size": size})), tmp_path / str(size), Watch())
        ends.append(load_file(tmp_path / str(size) / "model.safetensors"))
    summary = json.loads((tmp_path / "3" / "summary.json").read_text())
    assert summary["block_size"] == 3 and "r=1/2" in summary["label"]
    assert [row["cameras_counted"] for row in rows(tmp_path / "3" / "rounds.jsonl")] == [3, 3]
    base = build_experiment(tiny(**RUN)).base.model.state_dict()
    weights = [name for name in base if name.endswith("weight")]
    moved = [torch.cat([(end[name] - base[name]).flatten() for name in weights]) for end in ends]
    assert (moved[1] - moved[0]).norm() < 1e-3 * moved[0].norm()
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize("name", ["flora", "merged"])
def test_a_run_over_unequal_ranks_is_exact_but_for_what_svd_leaves_out(tmp_path: Path, name: str) -> None:
    changes = {"strategy__name": name, "adapter__rank": "1, 2, 4", "fleet__per_round": 4}
    run(tiny(**(RUN | changes)), tmp_path, Watch())
    found = rows(tmp_path / "rounds.jsonl")
    assert all((row["aggregation_error"] < 1e-6) == (name == "flora") and not row["skipped"] for row in found)
    sent = {row["camera"]: row["uplink_frame_bytes"] for row in rows(tmp_path / "cameras.jsonl") if row["round"] == 1}
    assert 0 < sent[0] < sent[1] < sent[2] and sent[3] == sent[0]
