"""Laws of a cluster: a scenario runs on all of its nodes, and where a camera runs decides nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod
from ray.cluster_utils import Cluster
from small_runs import rows, simulated, tiny

from fed_lorac.errors import RunError
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

CAMERAS = 6


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    """Two raylets on this machine, each with an id and a CPU of its own, as RAY_ADDRESS names them."""
    cluster = Cluster(shutdown_at_exit=True)  # should even pytest die
    with pytest.MonkeyPatch.context() as patch:
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20, include_dashboard=False)
            patch.setenv("RAY_ADDRESS", cluster.address)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def noting(folder: Path) -> Mod:
    """A mod that leaves a file for every turn: which camera, on which node. The radio's messages stay as they are."""

    def note(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if message.metadata.message_type == "train":
            camera, node = context.node_config["partition-id"], ray.get_runtime_context().get_node_id()
            (folder / f"{camera} {node} {message.metadata.message_id}").touch()
        return call_next(message, context)

    return note


@pytest.mark.slow
def test_cameras_run_on_both_nodes_and_give_what_one_process_gives(two_nodes: Cluster, tmp_path: Path) -> None:
    notes, settings = tmp_path / "notes", {"fleet__cameras": CAMERAS, "fleet__per_round": CAMERAS}
    notes.mkdir()
    simulated(tiny(**settings, run__engine="flower"), tmp_path / "flower", Watch(), [noting(notes)])
    turns = [path.name.split() for path in notes.iterdir()]
    assert two_nodes.head_node is not None
    ids = {node["NodeID"] for node in two_nodes.global_state.node_table()}
    assert len(ids) == 2 and {node for _, node, _ in turns} == ids
    assert sorted(int(camera) for camera, _, _ in turns) == sorted([*range(CAMERAS)] * 2)

    run(tiny(**settings, block_size=1), tmp_path / "fleet", Watch())
    for name in ("adapter.safetensors", "model.safetensors", "cameras.safetensors", "cameras.jsonl"):
        assert (tmp_path / "flower" / name).read_bytes() == (tmp_path / "fleet" / name).read_bytes(), name
    flower, local = (rows(tmp_path / engine / "rounds.jsonl", "seconds") for engine in ("flower", "fleet"))
    assert flower == local


def test_a_run_leaves_a_cluster_of_others_up(two_nodes: Cluster) -> None:
    assert not ray.is_initialized()
    nodes = [two_nodes.head_node, *two_nodes.worker_nodes]
    assert all(node.live_processes() and not node.dead_processes() for node in nodes)


def test_a_worker_that_fits_no_node_is_a_run_error(two_nodes: Cluster, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.threads = 2 CPUs .*1 CPUs and 0 GPUs, 1 CPUs and 0 GPUs"):
        run(tiny(run__engine="flower", run__threads=2), tmp_path / "run", Watch())
    assert not ray.is_initialized()
