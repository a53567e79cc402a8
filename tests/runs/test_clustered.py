"""Laws of the strategy "clustered": which cameras are alike, what a group has beside all, who is told it and when."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cameras import BASE, GRID, SHAPES, TEMPLATE, Dense, answer, float64_mean, folded, off, reply, served, state, tell
from cameras import train as one_round
from flwr.app import ArrayRecord, ConfigRecord
from hypothesis import given
from hypothesis import strategies as st
from interrupted import Ended, check_equal
from safetensors.torch import load_file
from small_runs import rows, tiny
from torch import Tensor

from fed_lorac.aggregation.clustering import clusters, cosines, gram, nearest
from fed_lorac.aggregation.delta_sum import DeltaSum, Sums, relative_distance, sum_states
from fed_lorac.client.agreement import frame_spec
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.models.fingerprints import shapes_of
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.server.fleet_strategy import Update
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.simulation.engines import run
from fed_lorac.wire.frame import decode, encode, inspect
from fed_lorac.wire.updates import PERSONAL_KEY, global_fingerprint, personal_fingerprint
from strategies.clustered import ClusteredFedAvg
from strategies.merged import DOWNLINKS, MergedFedAvg

TWO = {"fleet__corruptions": "fog, snow", "fleet__per_round": 4}


@pytest.fixture(autouse=True, scope="module")
def identity() -> Iterator[None]:
    with task_identity():
        yield


def personal(cameras: int = 3, **changes: Any) -> FrameStrategy:
    """Even cameras are of cluster 0, odd ones of cluster 1, unless clusters are to be found."""
    return served(ClusteredFedAvg, cameras, weather_of=lambda camera: camera % 2, **changes)


def found(cameras: int, **changes: Any) -> FrameStrategy:
    """The same with clusters found by similarity."""
    return served(ClusteredFedAvg, cameras, by="similarity", **changes)


def mean_of(seeds: Mapping[int, int], scale: float = 1.0) -> Dense:
    """The mean of what `one_round` has these cameras send."""
    total = sum(camera + 1 for camera in seeds)
    return float64_mean([(state(seed), (camera + 1) / total) for camera, seed in seeds.items()], scale)


def of_group(strategy: FrameStrategy, group: int) -> Dense:
    """What the server keeps of a group's change."""
    return {name: strategy.sums[f"cluster-{group}"][name].dense64().numpy() for name in SHAPES}


def told(strategy: FrameStrategy, camera: int) -> Dense:
    """What a camera makes of its group's frame."""
    own = strategy.personal_update(camera)
    assert own is not None
    return float64_mean([(decode(own.frame, base=personal_fingerprint(BASE)), 1.0)])


def off_nothing(changes: Dense, size: float) -> float:
    return max(float(np.abs(change).max()) for change in changes.values()) / size


# ---- Which cameras are alike ----


def sums_of(states: Sequence[Mapping[str, Tensor]], scale: float = 1.0) -> list[Sums]:
    return [sum_states([(one, 1.0)], SHAPES, scale) for one in states]


def vectors(states: Sequence[Mapping[str, Tensor]], scale: float = 1.0) -> np.ndarray:
    """Every change as one long vector, multiplied out camera by camera."""
    dense = [float64_mean([(dict(one), 1.0)], scale) for one in states]
    return np.stack([np.concatenate([one[name].ravel() for name in SHAPES]) for one in dense])


@given(
    ranks=st.lists(st.integers(1, 14), min_size=1, max_size=5),
    multiplied_out=st.lists(st.booleans(), min_size=5, max_size=5),
    seed=st.integers(0, 2**16),
)
def test_products_by_factors_are_those_of_the_dense_deltas(ranks: list[int], multiplied_out: list[bool], seed: int):
    """Some cameras' convolution comes dense, some as factors, of any rank; a stack of rank 12 or more is dense."""
    states = [state(seed + place, rank) for place, rank in enumerate(ranks)]
    rows_of = vectors(states, scale=0.5)
    for one, dense in zip(states, multiplied_out, strict=False):
        if dense:
            A, B = one.pop("conv.A").double(), one.pop("conv.B").double()
            one["conv.weight"] = (0.5 * B @ A).reshape(SHAPES["conv.weight"])
    products = gram(sums_of(states, scale=0.5))
    np.testing.assert_allclose(products, rows_of @ rows_of.T, rtol=1e-6, atol=1e-6 * np.abs(rows_of).max() ** 2)


@given(rows_of=st.integers(2, 6), seed=st.integers(0, 2**16))
def test_cosines_are_those_of_updates_less_their_mean(rows_of: int, seed: int):
    updates = np.random.default_rng(seed).normal(3.0, 1.0, (rows_of, 7))
    centred = updates - updates.mean(0)
    expected = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in centred] for a in centred])
    np.testing.assert_allclose(cosines(updates @ updates.T), expected, atol=1e-9)


@pytest.mark.parametrize("rows_of", [1, 2, 5])
@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 1e6])
def test_equal_updates_have_cosines_of_zero_and_form_one_cluster(rows_of: int, size: float):
    """What rounding leaves of a difference of equals points anywhere; it is no difference."""
    updates = np.tile(size * np.random.default_rng(3).normal(size=301), (rows_of, 1))
    alike = cosines(updates @ updates.T)
    assert not alike.any() and clusters(alike, 1) == [0] * rows_of
    if rows_of > 3:
        assert clusters(alike, 3) == [0] * rows_of


def planted(labels: Sequence[int], seed: int, noise: float = 0.3) -> np.ndarray:
    """Updates with one part in common, one of their group, and noise."""
    rng = np.random.default_rng(seed)
    shared, groups = 5 * rng.normal(size=50), rng.normal(size=(max(labels) + 1, 50))
    return np.stack([shared + groups[label] + noise * rng.normal(size=50) for label in labels])


@given(order=st.permutations([0, 0, 0, 1, 1, 1, 2, 2, 2, 2]), seed=st.integers(0, 50))
def test_planted_clusters_are_found_in_any_order_and_numbered_as_they_appear(order: list[int], seed: int):
    updates = planted(order, seed)
    first = {label: place for place, label in enumerate(dict.fromkeys(order))}
    assert clusters(cosines(updates @ updates.T), 3) == [first[label] for label in order]


@given(labels=st.lists(st.integers(0, 2), min_size=4, max_size=9).filter(lambda found: len(set(found)) > 1))
def test_a_new_camera_is_nearest_to_the_cluster_of_similar_updates(labels: list[int]):
    updates = planted([*labels, labels[0]], seed=len(labels))
    alike = cosines(updates @ updates.T)
    assert nearest(alike, dict(enumerate(labels)), len(labels)) == labels[0]


def test_of_equally_similar_clusters_the_lowest_is_joined():
    assert nearest(np.zeros((3, 3)), {0: 7, 1: 2}, 2) == 2


@pytest.mark.parametrize("cameras", [1, 2])
def test_fewer_cameras_than_clusters_are_at_most_as_many_clusters(cameras: int):
    updates = planted(list(range(cameras)), seed=1)
    assert clusters(cosines(updates @ updates.T), 3) == list(range(cameras))


# ---- What a group has beside all ----


@pytest.mark.parametrize("share", [0.25, 1.0])
@pytest.mark.parametrize("server_lr", [1.0, 0.5])
def test_a_clusters_delta_is_the_sum_of_its_differences_from_all(share: float, server_lr: float):
    strategy = personal(5, share=share, scale=2.0, downlink="dense", server_lr=server_lr)
    expected: dict[int, Dense] = {}
    for number, seeds in enumerate(({0: 1, 1: 2, 2: 3, 3: 4}, {0: 5, 3: 6, 4: 7}), 1):
        one_round(strategy, number, seeds)
        tell(strategy, number)
        everyone = mean_of(seeds, 2.0)
        for group in (0, 1):
            apart = mean_of({camera: seed for camera, seed in seeds.items() if camera % 2 == group}, 2.0)
            before = expected.get(group, {name: np.zeros(shape) for name, shape in SHAPES.items()})
            expected[group] = {n: before[n] + share * server_lr * (apart[n] - everyone[n]) for n in SHAPES}
    for group in (0, 1):
        assert off(of_group(strategy, group), expected[group]) < 1e-6
        assert off(told(strategy, group), expected[group]) < 1e-6


@pytest.mark.parametrize("downlink", DOWNLINKS)
def test_a_clusters_delta_is_sent_like_the_mean_and_kept_exact_on_the_server(downlink: str):
    strategy = personal(4, downlink=downlink)
    for number in (1, 2):
        one_round(strategy, number, {camera: 4 * number + camera for camera in range(4)})
        tell(strategy, number)
    own = strategy.personal_update(0)
    assert own is not None
    shapes, kept = inspect(own.frame).shapes, of_group(strategy, 0)
    if downlink == "svd":
        assert shapes["conv.A"] == (2, 12)
        u, s, v = np.linalg.svd(kept["conv.weight"].reshape(18, 12), full_matrices=False)
        nearest_pair = ((u[:, :2] * s[:2]) @ v[:2]).reshape(SHAPES["conv.weight"])
        assert off(told(strategy, 0), {**kept, "conv.weight": nearest_pair}) < 1e-5
    else:
        assert off(told(strategy, 0), kept) < 1e-6


@pytest.mark.parametrize("downlink", ["dense", "stack"])
@pytest.mark.parametrize("make", [personal, found])
def test_the_shared_mean_is_exact(downlink: str, make: Callable[..., FrameStrategy]):
    assert ClusteredFedAvg.exact
    strategy, seeds = make(4, downlink=downlink, scale=2.0), {camera: 9 + camera for camera in range(4)}
    one_round(strategy, 1, seeds)
    assert off(folded(strategy), mean_of(seeds, 2.0)) < 1e-6
    assert strategy.report.aggregation_error < 1e-6


@pytest.mark.parametrize("make", [personal, found])
@pytest.mark.parametrize("downlink", DOWNLINKS)
def test_with_no_share_it_is_merged_to_the_byte(downlink: str, make: Callable[..., FrameStrategy]):
    groups = make(4, downlink=downlink, share=0.0)
    merged = served(MergedFedAvg, 4, downlink=downlink)
    for number in (1, 2, 3):
        seeds = {camera: 5 * number + camera for camera in range(4) if camera != number}
        for strategy in (groups, merged):
            one_round(strategy, number, seeds)
        assert tell(groups, number) == tell(merged, number)
        assert groups.report.down == merged.report.down
    assert groups.updates == merged.updates


def sent(strategy: FrameStrategy, number: int, changes: Mapping[int, Mapping[str, Tensor]]) -> None:
    """A round in which these cameras answer with these states, of equal weight."""
    list(strategy.configure_train(number, ArrayRecord(), ConfigRecord(), GRID))
    base = global_fingerprint(BASE, strategy.folded_round)
    frames = {camera: encode(change, dtype="fp32", base=base) for camera, change in changes.items()}
    strategy.aggregate_train(number, [reply(camera, answer(frame)) for camera, frame in frames.items()])


def times(factor: float, change: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """That many times the change; of a pair, B."""
    return {name: value if name.endswith(".A") else factor * value for name, value in change.items()}


def test_two_weathers_with_opposite_updates_end_with_different_networks():
    """All together stand still; each group goes its way as if it were alone."""
    strategy, need = personal(4), state(3)
    for number in (1, 2):
        sent(strategy, number, {camera: times((-1.0) ** camera, need) for camera in range(4)})
        tell(strategy, number)
    size = max(float(np.abs(change).max()) for change in float64_mean([(need, 2.0)]).values())
    assert off_nothing(folded(strategy), size) < 1e-6
    for camera in range(4):
        assert off(told(strategy, camera), float64_mean([(times((-1.0) ** camera, need), 2.0)])) < 1e-5


def test_a_delta_that_its_dtype_cannot_hold_leaves_the_cluster_as_it_was():
    strategy, size = personal(2, dtype="fp16", downlink="dense"), torch.full((5,), 4e4)
    for number in (1, 2):
        sent(strategy, number, {k: times(0.0, state(k)) | {"fc.bias": (-1.0) ** k * size} for k in range(2)})
        tell(strategy, number)
        assert np.allclose(told(strategy, 0)["fc.bias"], 4e4) and not strategy.report.skipped
    assert strategy.personal_update(0) == Update(1, strategy.personal_update(0).frame)  # type: ignore[union-attr]
    assert np.allclose(of_group(strategy, 0)["fc.bias"], 4e4)


# ---- Who is told ----


def test_every_camera_of_a_cluster_is_sent_its_delta_and_billed_for_it():
    strategy = personal(5)
    one_round(strategy, 1, {0: 1, 1: 2, 2: 3})
    asked = {camera: weight.frame_bytes for camera, weight in strategy.report.down.items()}
    assert set(asked.values()) == {0}
    assert all(keys == [PERSONAL_KEY, "update-000001"] for keys in tell(strategy, 1).values())
    for camera, weight in strategy.report.down.items():  # cameras 3 and 4 have not trained yet
        own = strategy.personal_update(camera)
        assert own is not None
        frames = (strategy.updates[0].frame, own.frame)
        assert weight.frame_bytes == sum(map(len, frames))
        assert weight.payload_bytes == sum(inspect(frame).payload_bytes for frame in frames)
        assert weight.message_bytes > weight.frame_bytes
    assert (
        strategy.personal_update(1)
        == strategy.personal_update(3)
        != strategy.personal_update(0)
        == strategy.personal_update(4)
    )


def test_a_cluster_whose_delta_did_not_change_is_not_sent_it_again():
    strategy = personal(4)
    one_round(strategy, 1, {0: 1, 1: 2})
    tell(strategy, 1)
    before = strategy.personal_update(0), strategy.personal_update(1), of_group(strategy, 0)
    one_round(strategy, 2, {0: 3, 2: 4})  # one group alone: its mean is the mean
    assert set(map(tuple, tell(strategy, 2).values())) == {("update-000002",)}
    assert (strategy.personal_update(0), strategy.personal_update(1)) == before[:2]
    assert all(np.array_equal(of_group(strategy, 0)[name], before[2][name]) for name in SHAPES)
    one_round(strategy, 3, {1: 5, 2: 6})
    assert set(map(tuple, tell(strategy, 3).values())) == {(PERSONAL_KEY, "update-000003")}


def test_a_camera_that_was_away_is_sent_only_the_latest_delta_when_it_is_back():
    strategy = personal(4)
    for number in (1, 2):
        one_round(strategy, number, {camera: 4 * number + camera for camera in range(3)})
        keys = tell(strategy, number, deaf=[3])
    assert keys[3] == [PERSONAL_KEY, "update-000001", "update-000002"]
    own = strategy.personal_update(3)
    assert own is not None and own.round == 2
    messages = strategy.configure_train(3, ArrayRecord(), ConfigRecord(), GRID)
    keys = {strategy.roster[m.metadata.dst_node_id]: sorted(m.content.array_records) for m in messages}
    assert keys == {0: [], 1: [], 2: [], 3: [PERSONAL_KEY, "update-000001", "update-000002"]}


def test_in_a_round_that_is_skipped_no_cluster_moves():
    strategy = personal(4, quorum=3)
    one_round(strategy, 1, {0: 1, 1: 2, 2: 3})
    tell(strategy, 1)
    before = strategy.personal_update(0), dict(strategy.notes), of_group(strategy, 1)
    one_round(strategy, 2, {0: 4, 1: 5})
    assert strategy.report.skipped and set(map(tuple, tell(strategy, 2).values())) == {()}
    assert (strategy.personal_update(0), strategy.notes) == before[:2]
    assert all(np.array_equal(of_group(strategy, 1)[name], before[2][name]) for name in SHAPES)


# ---- Groups that are found ----


def needs(cameras: Sequence[int], group: Mapping[int, int], number: int = 0) -> dict[int, dict[str, Tensor]]:
    """What cameras send whose groups ask for different things, and all for one thing more."""
    sent_by = {}
    for camera in cameras:
        common, theirs, noise = state(99), state(200 + group[camera]), state(300 + 20 * number + camera)
        sent_by[camera] = {
            name: torch.cat([value, theirs[name], 0.3 * noise[name]]) if name == "conv.A" else value
            for name, value in common.items()
        }
        sent_by[camera]["conv.B"] = torch.cat([common["conv.B"], theirs["conv.B"], noise["conv.B"]], 1)
        for name in ("fc.bias", "fc.weight"):
            sent_by[camera][name] = common[name] + theirs[name] + 0.3 * noise[name]
    return sent_by


SIX = {"template": {**TEMPLATE, "conv.A": (6, 12), "conv.B": (18, 6)}}
GROUP = {0: 5, 1: 3, 2: 3, 3: 5, 4: 4, 5: 4, 6: 3}


def test_planted_clusters_are_found_and_a_later_camera_joins_the_most_similar():
    strategy = found(7, **SIX)
    sent(strategy, 1, needs([0, 4], GROUP))  # two cameras are no three groups
    assert tell(strategy, 1) == {camera: ["update-000001"] for camera in range(7)} and not strategy.notes["cluster"]
    sent(strategy, 2, needs([0, 1, 2, 4, 5], GROUP))
    assert strategy.notes["cluster"] == {"0": 0, "1": 1, "2": 1, "4": 2, "5": 2}
    keys = tell(strategy, 2)
    assert [camera for camera, records in keys.items() if PERSONAL_KEY in records] == [0, 1, 2, 4, 5]
    sent(strategy, 3, needs([3, 6, 0, 1, 4], GROUP, 3))
    assert strategy.notes["cluster"] == {"0": 0, "1": 1, "2": 1, "4": 2, "5": 2, "3": 0, "6": 1}
    assert all(PERSONAL_KEY in records for records in tell(strategy, 3).values())
    asked = strategy.configure_train(4, ArrayRecord(), ConfigRecord(), GRID)
    groups = [strategy.notes["cluster"][str(strategy.roster[m.metadata.dst_node_id])] for m in asked]
    assert groups == sorted(groups)  # those of one group can train side by side


def test_a_camera_that_joins_a_cluster_is_sent_the_clusters_delta():
    strategy = found(7, **SIX)
    sent(strategy, 1, needs([0, 1, 2, 4, 5], GROUP))
    tell(strategy, 1)
    sent(strategy, 2, needs([1, 2, 6], GROUP, 2))  # one group alone: its change does not move
    assert strategy.notes["cluster"]["6"] == 1
    assert PERSONAL_KEY in tell(strategy, 2)[6]
    sent(strategy, 3, needs([3], GROUP, 3))  # beside nobody of a group there is nobody to be like
    assert "3" not in strategy.notes["cluster"] and PERSONAL_KEY not in tell(strategy, 3)[3]


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
@pytest.mark.parametrize("make", [personal, found])
def test_a_new_strategy_object_resumes_with_the_same_clusters_and_bytes(make: Callable[..., FrameStrategy], dtype: str):
    whole, first, second = (make(7, dtype=dtype, seed=5, **SIX) for _ in range(3))
    for strategy in (whole, first):
        for number in (1, 2):
            sent(strategy, number, needs([0, 1, 2, 4, 5], GROUP, number))
            tell(strategy, number)
    notes = json.loads(json.dumps(first.notes))
    sums = {
        kind: {name: DeltaSum.of_parts(total.parts()) for name, total in totals.items()}
        for kind, totals in first.sums.items()
    }
    second.resume(first.updates, first.confirmed, sums, notes)
    assert [second.personal_update(camera) for camera in range(7)] == [
        whole.personal_update(camera) for camera in range(7)
    ]
    for strategy in (whole, second):
        sent(strategy, 3, needs([0, 1, 3, 4, 6], GROUP, 3))
    assert tell(whole, 3) == tell(second, 3)
    assert (whole.updates, whole.notes) == (second.updates, second.notes)
    assert [second.personal_update(camera) for camera in range(7)] == [
        whole.personal_update(camera) for camera in range(7)
    ]


# ---- Whole runs ----


LINEAR = {"adapter__method": "lora-xs", "adapter__rank": 2}


@pytest.mark.slow
@pytest.mark.parametrize("downlink", ["svd", "state"])
@pytest.mark.parametrize("by", ["weather", "similarity"])
def test_a_run_that_was_interrupted_goes_on_with_the_same_clusters(tmp_path: Path, by: str, downlink: str):
    config = tiny(
        **TWO, **({**LINEAR, "shared": by == "weather"} if downlink == "state" else {}), downlink=downlink,
        run__rounds=4, strategy__name="clustered", by=by, **({"clusters": 2} if by == "similarity" else {}),
        checkpoint_every=2, block_size=2, codec__down="int8", strategy__quorum=0.1,
        fleet__devices="limited", availability=0.8,
    )  # fmt: skip
    run(config, tmp_path / "whole", Watch())
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", Ended(3))
    run(config, tmp_path / "cut", Watch(), resume=True)
    check_equal(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("by", ["weather", "similarity"])
@pytest.mark.parametrize("method", ["lora-xs", "filter-atoms", "norm-affine"])
def test_mean_states_of_linear_adapters_say_the_clusters_deltas(tmp_path: Path, by: str, method: str):
    """Two routes: cameras fold the deltas themselves, or turn the states that they are sent into deltas."""
    sent, deltas = {}, {}
    for downlink in ("dense", "state"):
        config = tiny(
            **TWO, run__rounds=2, strategy__name="clustered", by=by, downlink=downlink, adapter__method=method,
            local__lr=0.01, **({"clusters": 2} if by == "similarity" else {}),
        )  # fmt: skip
        run(config, out := tmp_path / downlink, Watch())
        experiment = build_experiment(config)
        shapes = shapes_of(experiment.base.model)
        adapter, cameras = (load_file(out / f"{name}.safetensors") for name in ("adapter", "cameras"))
        parts = [adapter, *({k[6:]: v for k, v in cameras.items() if k.startswith(f"own-{c}.")} for c in (0, 1))]
        deltas[downlink] = [sum_states([(part, 1.0)], shapes, 1.0) for part in parts]
        sent[downlink] = sum(row["downlink_frame_bytes"] for row in rows(out / "rounds.jsonl"))
    for dense, said in zip(deltas["dense"], deltas["state"], strict=True):
        assert dense and relative_distance(said, dense) < 1e-4
    assert sent["state"] * 3 < sent["dense"] or method == "norm-affine"


@pytest.mark.parametrize("method", ["norm-affine", "lora-xs"])
def test_a_cluster_by_itself_learns_as_a_fleet_of_its_own(tmp_path: Path, method: str):
    """Two routes: clusters side by side, and two fleets of which each trains in one weather alone."""
    linear = {"adapter__method": method, "adapter__rank": 2} if method == "lora-xs" else {"adapter__method": method}
    made = {"run__rounds": 2, "local__lr": 0.01, **TWO, **linear}
    apart = {"strategy__name": "clustered", "downlink": "state", "shared": False}
    run(experiment := tiny(**made, **apart), tmp_path / "both", Watch())
    shapes = shapes_of(build_experiment(experiment).base.model)
    cameras = load_file(tmp_path / "both" / "cameras.safetensors")
    assert not load_file(tmp_path / "both" / "adapter.safetensors")
    for cluster, other in enumerate(("snow", "fog")):
        alone = tiny(**{**made, "fleet__per_round": 2}, fleet__held_out=other, strategy__name="fedavg")
        run(alone, tmp_path / other, Watch())
        theirs = sum_states([(load_file(tmp_path / other / "adapter.safetensors"), 1.0)], shapes, 1.0)
        own = {k[6:]: v for k, v in cameras.items() if k.startswith(f"own-{cluster}.")}
        assert relative_distance(sum_states([(own, 1.0)], shapes, 1.0), theirs) < 1e-4
    said = rows(tmp_path / "both" / "cameras.jsonl")
    up, down = (sum(row[f"{way}_frame_bytes"] for row in said) for way in ("uplink", "downlink"))
    assert up < down < 1.2 * up  # one frame each way, and one that holds nothing


def test_without_a_shared_part_a_cluster_takes_all_of_its_mean():
    with pytest.raises(ConfigError, match=r"came with share = 0\.5 and without the shared part"):
        tiny(strategy__name="clustered", shared=False, share=0.5)


def test_mean_states_are_for_linear_adapters():
    with pytest.raises(ConfigError, match=r"LoraC's is not, .* Set that to .svd., or use a linear adapter"):
        tiny(strategy__name="clustered", downlink="state")


def test_a_run_bills_each_camera_for_its_clusters_delta(tmp_path: Path):
    config = tiny(**TWO, strategy__name="clustered", run__rounds=1)
    run(config, tmp_path / "run", Watch())
    known = frame_spec(build_experiment(config)).templates
    adapter, cameras = (load_file(tmp_path / "run" / f"{name}.safetensors") for name in ("adapter", "cameras"))
    assert {k: int(v) for k, v in cameras.items() if k.startswith("own.")} == {
        f"own.camera-{camera}": camera % 2 for camera in range(4)
    }
    frames = [{k[6:]: v for k, v in cameras.items() if k.startswith(f"own-{group}.")} for group in (0, 1)]
    sizes = [len(encode(one, dtype="fp32", base="", templates=known)) for one in (adapter, *frames)]
    assert [row["downlink_frame_bytes"] for row in rows(tmp_path / "run" / "cameras.jsonl")] == [
        sizes[0] + sizes[1 + camera % 2] for camera in range(4)
    ]


# ---- What makes no sense ----


def test_settings_that_cannot_work_are_refused_at_once():
    for changes in ({"clusters": 0}, {"share": 1.5}, {"share": -0.1}, {"by": "colour"}, {"server_lr": 0.0}):
        with pytest.raises(ConfigError, match=rf"ClusteredFedAvg\.{next(iter(changes))} must be"):
            personal(**changes)


def test_clusters_by_weather_need_the_weather():
    with pytest.raises(ConfigError, match=r"weather of every camera.*camera 0.*similarity"):
        served(ClusteredFedAvg).configure_train(1, ArrayRecord(), ConfigRecord(), GRID)


@pytest.mark.parametrize("setting", [{"strategy__server_optimizer": "momentum"}, {"strategy__aggregator": "krum"}])
def test_a_config_whose_server_does_more_than_average_is_refused(setting: dict[str, object]):
    with pytest.raises(ConfigError, match=r"(aggregator|server_optimizer) has no meaning under .*merged"):
        tiny(strategy__name="clustered", **setting)


def test_weathers_that_change_cluster_nobody():
    assert tiny(strategy__name="clustered", fleet__schedule="front")
    with pytest.raises(ConfigError, match=r'by = "similarity"'):
        tiny(strategy__name="clustered", fleet__schedule="walk")


def test_more_clusters_than_a_round_has_cameras_are_refused():
    settings = {"strategy__name": "clustered", "by": "similarity"}
    assert tiny(**settings, clusters=2).strategy.settings("name")["clusters"] == 2
    with pytest.raises(ConfigError, match=r"clusters = 4, and a round draws 3 cameras.*fleet\.per_round = 3"):
        tiny(**settings, clusters=4)


def test_a_camera_that_joins_a_cluster_whose_part_is_refused_is_sent_the_one_that_stays():
    strategy = found(4, clusters=2, dtype="fp16", downlink="dense")

    def sends(k: int, sign: int) -> dict[str, Tensor]:
        return {name: 0 * tensor for name, tensor in state(k).items()} | {"fc.bias": sign * torch.full((5,), 4e4)}

    def has_round(number: int, said: Mapping[int, dict[str, Tensor]]) -> None:
        list(strategy.configure_train(number, ArrayRecord(), ConfigRecord(), GRID))
        frames = {k: encode(one, dtype="fp32", base=now(strategy)) for k, one in said.items()}
        strategy.aggregate_train(number, [reply(k, answer(frame)) for k, frame in frames.items()])

    def now(strategy: FrameStrategy) -> str:
        return global_fingerprint(BASE, strategy.updates[-1].round if strategy.updates else 0)

    has_round(1, {0: sends(0, 1), 1: sends(1, -1)})
    tell(strategy, 1)
    has_round(2, {0: sends(0, 1), 1: sends(1, -1), 2: sends(2, 1)})  # twice 4e4 is beyond fp16
    assert strategy.cluster_of(2) == strategy.cluster_of(0)
    asked = {
        strategy.roster[m.metadata.dst_node_id]: m
        for m in strategy.configure_train(3, ArrayRecord(), ConfigRecord(), GRID)
    }
    assert PERSONAL_KEY in asked[2].content.array_records


def test_without_a_share_there_are_no_clusters_to_refuse():
    assert ClusteredFedAvg(share=0.0).refuses_fleet(per_round=3, weather_walks=True) is None
    several = ClusteredFedAvg(share=0.0, by="similarity", clusters=4)
    assert several.refuses_fleet(per_round=3, weather_walks=False) is None
    assert replace(several, share=0.5).refuses_fleet(per_round=3, weather_walks=False) is not None
