"""Laws of Ctrl-C, with a real signal to a real process: what was finished is on the disk, whole and in agreement."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from interrupted import TENSORS, Ended, check_equal
from small_runs import environment, rows, tiny, words

from fed_lorac.config import load_config
from fed_lorac.records.ledger import Ledger
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation import engines
from fed_lorac.simulation.engines import run

PATIENCE_S = 300  # a loaded machine is slow to import PyTorch


def interrupted(out: Path, log: Path, *settings: str) -> int:
    """Run the command line until two rounds are written, press Ctrl-C, and return its exit code."""
    changes = [word for setting in settings for word in ("-c", setting)]
    command = [sys.executable, "-m", "fed_lorac", "run", *changes, "--out", str(out)]
    with log.open("wb") as said:
        # A shell that runs the tests in the background has them ignore SIGINT, and a child would inherit that.
        process = subprocess.Popen(
            command,
            env=environment(),
            cwd=log.parent,
            stdout=said,
            stderr=said,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  (it starts no thread)
        )
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not (out / "rounds.jsonl").exists() or len(rows(out / "rounds.jsonl")) < 2:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            return process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    "workers",
    [
        {},
        pytest.param({"run__workers": 2}, marks=pytest.mark.slow),
        pytest.param({"run__workers": 2, "run__pool": "threads"}, marks=pytest.mark.slow),
    ],
    ids=["alone", "ray", "threads"],
)
def test_ctrl_c_leaves_the_finished_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: dict[str, Any]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    out, endless = tmp_path / "run", {"run__rounds": 5000, "local__schedule": "constant"}
    settings = words(**endless, **workers)
    assert interrupted(out, tmp_path / "log", *settings) == 130, (tmp_path / "log").read_text()

    done = rows(out / "rounds.jsonl")
    assert [row["round"] for row in done] == list(range(1, len(done) + 1))
    assert (out / "rounds.jsonl").read_bytes().endswith(b"}\n") and (out / "cameras.jsonl").read_bytes().endswith(
        b"}\n"
    )
    by_camera = [row["round"] for row in rows(out / "cameras.jsonl")]
    assert by_camera[: 4 * len(done)] == [row["round"] for row in done for _ in range(4)]
    assert load_config(out / "config.toml") == load_config(None, settings)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["interrupted"], summary["rounds"]) == (True, len(done))
    assert summary["adapted_accuracy"] == done[-1]["accuracy"]
    assert not [path for path in out.iterdir() if path.name.startswith(".")]

    # The same number of rounds run to their end: the interrupted round has left no trace.
    whole = tmp_path / "whole"
    run(load_config(None, words(**endless | {"run__rounds": len(done)})), whole, Watch())
    for name in ("adapter.safetensors", "model.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert rows(out / "rounds.jsonl", "seconds") == rows(whole / "rounds.jsonl", "seconds")


@pytest.mark.slow
@pytest.mark.parametrize("camera", [0, 2, None])
def test_of_a_round_that_is_interrupted_while_it_is_written_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, camera: int | None
) -> None:
    """`camera`: after whose row it is; None: after the round's."""
    config = tiny(run__rounds=3, local__lr=0.3, fleet__per_round=4)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "clean", Ended(1))
    write = Ledger.round if camera is None else Ledger.camera

    def cut(self: Ledger, **columns: object) -> object:
        found = write(self, **columns)
        if columns["round"] == 2 and columns.get("camera") == camera:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(Ledger, write.__name__, cut)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", Watch())
    monkeypatch.undo()
    for name in TENSORS:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "clean" / name).read_bytes()
    for name in ("rounds.jsonl", "cameras.jsonl"):
        assert rows(tmp_path / "cut" / name, "seconds") == rows(tmp_path / "clean" / name, "seconds")
    a, b = (json.loads((tmp_path / one / "summary.json").read_text()) for one in ("cut", "clean"))
    assert a | {"seconds": 0} == b | {"seconds": 0}
    run(config, tmp_path / "cut", Watch(), resume=True)
    run(config, tmp_path / "whole", Watch())
    check_equal(tmp_path / "cut", tmp_path / "whole")


def test_ctrl_c_while_the_command_line_is_imported_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from fed_lorac.__main__ import main; main()"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_workers_are_let_go_where_ctrl_c_comes_while_they_are_hired(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    class Hired:
        def close(self) -> None:
            closed.append(True)

    def interrupted_there(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(engines, "_hire", lambda *_: Hired())
    monkeypatch.setattr(engines, "block_size_of", interrupted_there)
    with pytest.raises(KeyboardInterrupt):
        engines.Fleet(tiny())
    assert closed == [True]
