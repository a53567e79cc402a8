"""Laws of `flwr run`: the app bundle on a SuperLink of its own does what the local engine does, byte for byte."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from own_parts import settings_of_parts, write_package
from small_runs import ROOT, environment, rows, tiny

from fed_lorac.config import load_config
from fed_lorac.models.weights import SHIPPED
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.spelling import toml
from fed_lorac.simulation.engines import run

pytestmark = pytest.mark.slow
PATIENCE_S = 500
PACKAGE = "parts_under_flwr"
ATTEMPTS = 5  # Flower gives a SuperLink 15 seconds to start, which a loaded machine may not have
FlwrRun = Callable[..., str]


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def sessions_of(home: Path) -> set[int]:
    """The sessions (each a SuperLink and all that it started) whose SuperLink keeps its state under `home`."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if any("flower-superlink" in word for word in words) and any(str(home) in word for word in words):
                found.add(os.getsid(int(process.name)))
    return found


def end(session: int) -> None:
    """End every process of a session: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.getsid(int(process.name)) == session:
                    os.kill(int(process.name), number)
        time.sleep(2)


@pytest.fixture(scope="module")
def flwr_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlwrRun]:
    """`flwr run` from a folder of its own with a SuperLink of its own, which is stopped at the end."""
    home, folder = tmp_path_factory.mktemp("flwr-home"), tmp_path_factory.mktemp("flwr-cwd")
    own = environment(
        FLWR_HOME=str(home),
        FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION="1",
        FLWR_DISABLE_UPDATE_CHECK="1",
        FLWR_LOCAL_SUPERLINK_HTTP_API_PORT=free_port(),
        FLWR_LOCAL_CONTROL_API_PORT=free_port(),
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        COLUMNS="200",
        PYTHONPATH=os.pathsep.join([str(ROOT), str(folder)]),
    )
    write_package(folder, PACKAGE)  # as one that is installed
    own.pop("RAY_ADDRESS", None)

    def start(*arguments: str) -> str:
        resources = "num-supernodes=4 client-resources-num-cpus=1 init-args-num-cpus=2"
        command = ["flwr", "run", str(ROOT), "--stream", "--federation-config", resources, *arguments]
        for _ in range(ATTEMPTS):
            done = subprocess.run(
                command, cwd=folder, env=own, capture_output=True, text=True, timeout=PATIENCE_S, check=False
            )
            if "Failed to start local SuperLink within" not in done.stdout + done.stderr:
                break
        return done.stdout + done.stderr

    try:
        yield start
    finally:
        for session in sessions_of(home):
            end(session)


def test_a_runs_own_config_runs_again_under_flwr_run(flwr_run: FlwrRun, tmp_path: Path) -> None:
    out, again = tmp_path / "local", tmp_path / "flwr"
    run(tiny(block_size=1), out, Watch())  # as Flower's nodes train: one at a time
    resolved = (out / "config.toml").read_text().replace('out = ""', f'out = "{again}"')
    (tmp_path / "again.toml").write_text(resolved)
    said = flwr_run("--run-config", str(tmp_path / "again.toml"))
    assert f"The run is in {again}" in said, said
    for name in ("adapter.safetensors", "model.safetensors", "cameras.safetensors", "cameras.jsonl"):
        assert (out / name).read_bytes() == (again / name).read_bytes(), name
    assert rows(out / "rounds.jsonl", "seconds") == rows(again / "rounds.jsonl", "seconds")


def test_parts_of_ones_own_run_under_flwr_run(
    flwr_run: FlwrRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower's run-config carries one text for the settings of all parts of a section."""
    write_package(tmp_path, PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    config = load_config(None, {**settings_of_parts(PACKAGE), "run.fleet.block_size": 1})
    run(config, tmp_path / "local", Watch())
    flat = {**config.to_flat(), "run.out": str(tmp_path / "flwr")}
    said = flwr_run("--run-config", " ".join(f"{key}={toml(value)}" for key, value in flat.items()))
    assert f"The run is in {tmp_path / 'flwr'}" in said, said
    for name in ("adapter.safetensors", "model.safetensors", "cameras.jsonl"):
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "flwr" / name).read_bytes(), name


@pytest.mark.skipif(
    not (ROOT / "fed_lorac/models/weights" / SHIPPED["resnet8"]["digits"]).exists(),
    reason="the weights are not shipped",
)
def test_the_shipped_weights_are_found_from_inside_the_bundle(flwr_run: FlwrRun) -> None:
    said = flwr_run(
        "--run-config", 'model.weights="shipped" run.rounds=1 fleet.cameras=4 fleet.per_round=4 run.threads=1'
    )
    [folder] = [line.partition("The run is in ")[2].strip() for line in said.splitlines() if "The run is in " in line]
    assert Path(folder).is_absolute()
    assert [row["cameras_counted"] for row in rows(Path(folder) / "rounds.jsonl")] == [4]


def test_a_value_that_cannot_be_is_our_config_error(flwr_run: FlwrRun) -> None:
    said = flwr_run("--run-config", 'model.name="resnet9"')
    assert "ConfigError: A model must be one of" in said and "Did you mean 'resnet8'?" in said, said


def test_a_key_that_cannot_be_starts_nothing(flwr_run: FlwrRun) -> None:
    """Flower looks at the keys before our app is asked, and says no more than this."""
    said = flwr_run("--run-config", "run.ronds=3")
    assert "Invalid run configuration" in said and "Successfully started" not in said, said


def test_too_few_nodes_are_said_so_with_the_remedy(flwr_run: FlwrRun) -> None:
    said = flwr_run("--run-config", 'model.weights="none" model.resnet8.width=4 run.threads=1')
    assert "RunError: A run needs a node for each of its 12 cameras; 4 registered. Set num-supernodes=12" in said, said
