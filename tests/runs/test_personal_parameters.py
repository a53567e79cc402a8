"""Laws of a camera's own part of the network: how it travels, who remembers it, what is saved of it and exported."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_runs import rounds_run, rows, tiny
from torch import Tensor, nn

from fed_lorac.adapters.deltas import dense_delta, join_deltas
from fed_lorac.client.agreement import frame_spec
from fed_lorac.client.app import make_client_app
from fed_lorac.client.handlers import FleetApp
from fed_lorac.client.state import ClientState, GlobalModels
from fed_lorac.config import Config
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.base_model import fresh_model
from fed_lorac.experiment.build import build_experiment
from fed_lorac.export import export_run, load_adapter, load_network
from fed_lorac.fleet.camera_data import camera_data
from fed_lorac.grid.executor import SerialExecutor
from fed_lorac.grid.fleet_grid import FleetGrid
from fed_lorac.grid.in_process import in_process
from fed_lorac.records.checkpoint import Checkpoints
from fed_lorac.reporting.summary import label as label_of
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.flower_private import record_of, task_identity
from fed_lorac.simulation.engines import run
from fed_lorac.training.accuracy import accuracy
from fed_lorac.wire.billing import frame_record
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.updates import PERSONAL_KEY, global_fingerprint, personal_fingerprint

WAYS: dict[str, dict[str, object]] = {
    "clustered": {"strategy__name": "clustered", "fleet__corruptions": "fog, snow"},
    "flexlora": {"strategy__name": "flexlora", "adapter__rank": "1, 3", "rank_mode": "r"},
    "local-only": {"strategy__name": "local-only"},
    "merged": {"adapter__method": "norm-affine + lora-c", "adapter__parts__personal": "lora-c"},
}
WAYS["clustered parts"] = {**WAYS["clustered"], **WAYS["merged"], "strategy__clustered__shared": False}
OWN_PARTS = {"clustered": 2, "flexlora": 2, "local-only": 4, "merged": 4, "clustered parts": 4}  # of four cameras
COMMON = {"block_size": 1, "checkpoint_every": 2, "fleet__per_round": 4, "local__schedule": "constant"}
FILES = ("adapter.safetensors", "model.safetensors", "cameras.safetensors", "cameras.jsonl")


@pytest.fixture(autouse=True, scope="module")
def identity() -> Iterator[None]:
    with task_identity():
        yield


def config_of(way: str, **changes: object) -> Config:
    return tiny(**COMMON | WAYS[way] | changes)


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Name in WAYS -> the folder of a finished run of two rounds."""

    @cache
    def found(way: str) -> Path:
        folder = tmp_path_factory.mktemp(way) / "run"
        run(config_of(way), folder, Watch())
        return folder

    return found


# ---- The same wherever cameras live ----


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_flowers_client_app_leaves_the_same_bytes(run_of: Any, tmp_path: Path, way: str):
    """There each node remembers for itself, and says at the end what is its own."""
    config = config_of(way)
    rounds_run(in_process(make_client_app(config), config.fleet.cameras), config, tmp_path / "run")
    for name in FILES:
        assert (tmp_path / "run" / name).read_bytes() == (run_of(way) / name).read_bytes(), name
    both = [rows(folder / "rounds.jsonl", "seconds") for folder in (tmp_path / "run", run_of(way))]
    assert both[0] == both[1]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["clustered", "local-only"])
def test_flowers_own_engine_leaves_the_same_bytes(
    run_of: Any, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ours = {"block_size": None, "checkpoint_every": None}  # settings of our grid
    run(config_of(way, run__engine="flower", run__workers=2, **ours), tmp_path / "run", Watch())
    for name in FILES:
        assert (tmp_path / "run" / name).read_bytes() == (run_of(way) / name).read_bytes(), name


@pytest.mark.parametrize("way", ["clustered", "flexlora"])
def test_a_block_of_several_clusters_or_ranks_agrees_with_one_at_a_time(run_of: Any, tmp_path: Path, way: str):
    run(config_of(way, block_size=4), tmp_path / "run", Watch())
    one, other = (load_file(folder / "model.safetensors") for folder in (tmp_path / "run", run_of(way)))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-4)


# ---- What is saved ----


@pytest.mark.parametrize("way", WAYS)
def test_one_delta_is_saved_for_all_cameras_that_share_it(run_of: Any, way: str):
    found = load_file(run_of(way) / "cameras.safetensors")
    places = [int(found[f"own.camera-{camera}"]) for camera in range(4)]
    assert len(set(places)) == OWN_PARTS[way] and places[0] != places[1]
    assert (places[0] == places[2]) == (OWN_PARTS[way] < 4)
    assert {k.partition(".")[0] for k in found if k.startswith("own-")} == {f"own-{place}" for place in places}


def by_hand(folder: Path, camera: int, way: str) -> dict[str, Tensor]:
    """A camera's network in float64 NumPy, of the frames alone: the starting base, every update, its own part."""
    kept = Checkpoints(folder).newest()
    summary = json.loads((folder / "summary.json").read_text())
    config = config_of(way)
    experiment, base = build_experiment(config), summary["base"]["fingerprint"]
    assert kept is not None and experiment.base.fingerprint == base
    weights = {n: t.numpy().astype(np.float64) for n, t in experiment.base.model.state_dict().items()}
    folded, known = 0, frame_spec(experiment).templates
    for number, frame in sorted(kept.updates.items()):
        _add(weights, decode(frame, base=global_fingerprint(base, folded), templates=known), 1.0)
        folded = number
    state = ClientState.read(record_of(kept.tensors[f"node {1000 + camera}"].numpy().tobytes()))
    scale = config.adapter.alpha / max(config.adapter.ranks)
    of_cluster = summary["strategy"] == "clustered"
    assert state.personal_frame or state.parts_frame
    for frame, by in ((state.personal_frame, 1.0 if of_cluster else scale), (state.parts_frame, scale)):
        if frame:
            _add(weights, decode(frame, base=personal_fingerprint(base), templates=known), by)
    return {name: torch.from_numpy(value) for name, value in weights.items()}


def _add(weights: dict[str, np.ndarray], change: dict[str, Tensor], scale: float) -> None:
    for name, value in change.items():
        if name.endswith(".A"):
            A, B = (change[f"{name[:-1]}{side}"].numpy().astype(np.float64) for side in "AB")
            target = f"{name[:-1]}weight"
            weights[target] = weights[target] + scale * (B @ A).reshape(weights[target].shape)
        elif not name.endswith(".B"):
            weights[name] = weights[name] + value.numpy()


def network_by_hand(folder: Path, camera: int, way: str) -> nn.Module:
    own = load_file(folder / "cameras.safetensors")
    statistics = {k.partition(".")[2]: v for k, v in own.items() if k.startswith(f"camera-{camera}.")}
    model = fresh_model(config_of(way), 10)
    model.load_state_dict({**by_hand(folder, camera, way), **statistics})
    assert statistics
    return model.eval()


def pictures(seed: int) -> Tensor:
    return torch.randint(0, 256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("way", WAYS)
def test_an_export_is_the_base_its_updates_and_the_cameras_own_part(run_of: Any, way: str):
    answers = []
    for camera in (0, 1):
        deployed = load_network(export_run(run_of(way), "safetensors", camera=camera).path)
        images = pictures(camera)
        with torch.no_grad():
            expected = network_by_hand(run_of(way), camera, way)((images - deployed.mean) / deployed.std)
            torch.testing.assert_close(deployed(images), expected, rtol=1e-4, atol=1e-4)
            answers.append(deployed(pictures(9)))
    assert not torch.allclose(answers[0], answers[1], atol=1e-3)


@pytest.mark.parametrize("way", WAYS)
def test_the_adapter_alone_makes_the_same_network_of_the_base(run_of: Any, tmp_path: Path, way: str):
    experiment = build_experiment(config_of(way))
    for camera in (0, 3):
        model = fresh_model(config_of(way), 10)
        model.load_state_dict(experiment.base.model.state_dict())
        load_adapter(
            model, export_run(run_of(way), "adapter", camera=camera, out=tmp_path / f"{camera}.safetensors").path
        )
        expected = network_by_hand(run_of(way), camera, way).state_dict()
        for name, found in model.state_dict().items():
            torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("way", WAYS)
def test_exported_networks_score_what_the_run_measured(run_of: Any, tmp_path: Path, way: str):
    experiment, scores = build_experiment(config_of(way)), []
    for camera in experiment.fleet.cameras:
        path = export_run(
            run_of(way), "safetensors", camera=camera.id, fold=False, out=tmp_path / f"{camera.id}.safetensors"
        ).path
        view = camera_data(experiment.data, camera, 0)
        scores.append(accuracy(load_network(path).network, view.test, view.test_labels))
    summary = json.loads((run_of(way) / "summary.json").read_text())
    assert summary["adapted_accuracy"] == pytest.approx(sum(scores) / len(scores), abs=1e-9)


def test_without_a_camera_it_is_what_all_share(run_of: Any):
    for camera in (None, 1):
        written = export_run(run_of("clustered"), "adapter", camera=camera)
        assert written.metadata["own_part"] == ("none" if camera is None else "camera 1")
    shared = load_network(export_run(run_of("clustered"), "safetensors", fold=False).path).network.state_dict()
    merged = load_file(run_of("clustered") / "model.safetensors")
    assert all(torch.equal(shared[name], merged[name]) for name in shared)


# ---- Parts that stay with each camera ----


def test_of_an_adapter_with_a_personal_part_the_other_parts_alone_are_sent(run_of: Any, tmp_path: Path):
    changes = {"adapter__method": "norm-affine", "strategy__name": "merged"}
    run(tiny(**COMMON | changes), tmp_path / "alone", Watch())
    own, alone = (Checkpoints(folder).newest() for folder in (run_of("merged"), tmp_path / "alone"))
    assert own and alone and list(map(len, own.updates.values())) == list(map(len, alone.updates.values()))
    folders = (run_of("merged"), tmp_path / "alone")
    sent = [[row["uplink_frame_bytes"] for row in rows(folder / "rounds.jsonl")] for folder in folders]
    assert sent[0] == sent[1] and sum(sent[0]) > 0


def test_a_personal_part_beside_one_that_stands_still_is_trained_as_each_camera_trains_alone(tmp_path: Path):
    """Two routes: norms that hardly move are shared, or nothing is."""
    names = [f"{method}.train_{end}" for method in ("norm-affine", "lora-c") for end in ("first_conv", "classifier")]
    ends = {f"adapter.{name}": False for name in names}
    parts = {**COMMON, **ends, **WAYS["merged"], "lr_factors": "1e-9, 1"}
    run(tiny(**parts), tmp_path / "both", Watch())
    run(tiny(**{**parts, "adapter__parts__personal": "", "strategy__name": "local-only"}), tmp_path / "alone", Watch())
    both, alone = (load_file(tmp_path / name / "cameras.safetensors") for name in ("both", "alone"))
    own = [key for key in both if key.startswith("own-")]
    assert own and set(own) <= set(alone)
    for key in own:
        torch.testing.assert_close(both[key], alone[key], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"adapter__parts__personal": "lora-xs"}, "Personal parts are some of the method's.* Remove lora-xs"),
        ({"adapter__parts__personal": "lora-c, norm-affine"}, "at least one is sent"),
        ({"strategy__name": "local-only"}, "under this strategy nothing is sent"),
        ({"strategy__name": "zeroth-order"}, "every part begins a round anew"),
        (
            {"adapter__parts__personal": "norm-affine", "adapter__norm-affine__end_rank": 2},
            "over the frozen numbers that it began with.*NormAffine has some. Set its end_rank = 0",
        ),
        ({"adapter__layers": "auto"}, "Layers are chosen by what all send"),
    ],
)
def test_personal_parts_are_refused_where_they_cannot_be(changes: dict[str, object], law: str):
    with pytest.raises(ConfigError, match=law):
        config_of("merged", **changes)


# ---- Changes side by side ----

WEIGHT = (6, 4, 3, 3)
KINDS = ("none", "dense", "view", "filter", "kernels")


def change_of(kind: str, rank: int, seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    sides: dict[str, dict[str, tuple[int, ...]]] = {
        "none": {},
        "dense": {"conv.weight": WEIGHT},
        "view": {"conv.A": (rank, 12), "conv.B": (18, rank)},
        "filter": {"conv.A": (rank, 36), "conv.B": (6, rank)},
        "kernels": {"conv.A": (6, 4, rank, 3), "conv.B": (6, 4, 3, rank)},
    }
    bias = {"fc.bias": (5,)} if seed % 2 else {}
    return {name: torch.randn(shape, generator=g) for name, shape in {**sides[kind], **bias}.items()}


@given(
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
    ranks=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seeds=st.tuples(st.integers(0, 99), st.integers(100, 199)),
)
def test_two_deltas_joined_do_what_both_do(kinds: tuple[str, str], ranks: tuple[int, int], seeds: tuple[int, int]):
    first, second = both = [change_of(*parts) for parts in zip(kinds, ranks, seeds, strict=True)]
    shapes = {"conv.weight": WEIGHT, "fc.bias": (5,)}
    found = join_deltas(first, second, shapes)
    for name, shape in shapes.items():
        stem = f"{name.removesuffix('.weight')}.A"
        parts = [dense_delta(one, name, shape, 1.0) for one in both if name in one or stem in one]
        if parts:
            torch.testing.assert_close(dense_delta(found, name, shape, 1.0), torch.stack(parts).sum(0))
        else:
            assert not {name, stem} & found.keys()
    if kinds in (("view", "view"), ("filter", "filter")):
        assert found["conv.A"].shape[0] == sum(ranks)  # still factors


def test_joined_with_nothing_a_delta_is_itself():
    for kind in KINDS:
        change = change_of(kind, 2, 7)
        for found in (join_deltas(change, {}, {}), join_deltas({}, change, {})):
            assert found.keys() == change.keys() and all(found[name] is change[name] for name in change)


# ---- What a camera keeps ----


def record(frame: bytes) -> RecordDict:
    return RecordDict({PERSONAL_KEY: frame_record(frame)})


def test_personal_parameters_are_those_a_camera_made_else_those_it_was_told_else_those_it_had():
    nothing = RecordDict()
    for made, told, had, kept in (
        (b"made", b"told", b"had", b"made"),
        (b"", b"told", b"had", b"told"),
        (b"", None, b"had", b"had"),
        (b"", None, None, b""),
    ):
        before, message = (nothing if frame is None else record(frame) for frame in (had, told))
        after = ClientState.read(before).after(message, 1)
        assert (after.with_personal(made) if made else after).personal_frame == kept
    assert (
        ClientState.read(record(b"had")).after(record(b"told"), 1).write()[PERSONAL_KEY]
        == record(b"told")[PERSONAL_KEY]
    )


# ---- Frames that are not right ----


def spoiled(way: str, config: Config) -> dict[str, bytes]:
    """Frames of the right content that no camera may take."""
    experiment = build_experiment(config)
    tensors = {"fc.weight": torch.zeros(experiment.base.model.state_dict()["fc.weight"].shape)}
    right = encode(tensors, dtype="fp32", base=personal_fingerprint(experiment.base.fingerprint))
    return {
        "truncated": right[:-1],
        "bad crc": right[:-1] + bytes([right[-1] ^ 1]),
        "another base": encode(tensors, dtype="fp32", base=personal_fingerprint("another")),
        "a running base": encode(tensors, dtype="fp32", base=global_fingerprint(experiment.base.fingerprint, 0)),
    }


@pytest.mark.parametrize("kind", [MessageType.TRAIN, MessageType.EVALUATE])
@pytest.mark.parametrize("way", ["clustered", "flexlora"])
@pytest.mark.parametrize("engine", ["fleet", "client app"])
def test_a_camera_refuses_an_own_part_that_is_damaged_or_anothers(way: str, kind: str, engine: str):
    """It says so, remembers what it did before, and its neighbours in the block answer."""
    config = config_of(way)
    for why, frame in spoiled(way, config).items():
        if engine == "fleet":
            grid = FleetGrid(
                SerialExecutor(FleetApp(config.to_flat())),
                3,
                block_size=3,
                shared=GlobalModels(build_experiment(config)).after,
            )
        else:
            grid = in_process(make_client_app(config), 3)
        asked = ConfigRecord({"server-round": 1, "measure": True})
        contents = [RecordDict({"config": asked}) for _ in range(3)]
        contents[1][PERSONAL_KEY] = frame_record(frame)
        messages = [Message(c, dst_node_id=1000 + k, message_type=kind) for k, c in enumerate(contents)]
        replies = list(grid.send_and_receive(messages))
        assert [reply.has_content() for reply in replies] == [True, False, True], why
        assert "FrameError" in str(replies[1].error.reason), why
        assert not grid.states[1001].array_records


# ---- Ctrl-C ----


class Cut(Watch):
    """Ctrl-C in the midst of a phase of the third round, when most of its cameras have answered."""

    def __init__(self, phase: str) -> None:
        self.phase_to_cut, self.phases, self.replies = phase, 0, -1

    def phase(self, what: str, total: int) -> None:
        self.phases += what == self.phase_to_cut
        self.replies = 0

    def reply(self) -> None:
        self.replies += 1
        if self.phases == 3 and self.replies == 4:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["train", "evaluate"])
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupted_round_leaves_no_trace_in_the_results(run_of: Any, tmp_path: Path, way: str, phase: str):
    with pytest.raises(KeyboardInterrupt):
        run(config_of(way, run__rounds=5), tmp_path / "run", Cut(phase))
    assert len(rows(tmp_path / "run" / "rounds.jsonl")) == 2
    for name in FILES:
        assert (tmp_path / "run" / name).read_bytes() == (run_of(way) / name).read_bytes(), name


# ---- What a reader sees ----


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        (WAYS["clustered"], "lora-c r=2 (auto), clustered svd by weather"),
        (WAYS["flexlora"], "lora-c r=1/3 (r), flexlora"),
        (WAYS["local-only"], "lora-c r=2 (auto), local-only"),
        ({"strategy__name": "zero-byte", "adapter__method": "full"}, "zero-byte"),
        ({"strategy__name": "local-only", "adapter__method": "full"}, "full fine-tuning, local-only"),
        ({"strategy__name": "fedavg", "adapter__method": "full"}, "full fine-tuning"),
        ({"strategy__name": "local-only", "adapter__method": "norm-affine"}, "norm-affine, local-only"),
    ],
)
def test_a_run_is_called_by_what_it_did(changes: dict[str, object], label: str):
    assert label_of(tiny(**changes)) == label


def test_a_run_says_who_shares_a_cluster(run_of: Any):
    assert json.loads((run_of("clustered") / "summary.json").read_text())["groups"] == {"0": 0, "1": 1, "2": 0, "3": 1}
    assert json.loads((run_of("local-only") / "summary.json").read_text())["groups"] == {}
