"""Laws of exit: a process with an executor ends at once, even where workers hang, and after Ctrl-C; nothing stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from executor_apps import Naughty
from small_runs import ROOT, environment

pytestmark = pytest.mark.slow
PATIENCE_S = 300  # a loaded machine is slow to import PyTorch
AT_ONCE_S = 5.0

SCRIPT = """
import sys, time
from functools import partial
from pathlib import Path
from executor_apps import Naughty, blocks
from small_runs import tiny
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.grid.ray.executor import RayExecutor

home, leaves = Path(sys.argv[1]), sys.argv[2] == "leave"
with task_identity():
    executor = RayExecutor(tiny(run__workers=2), partial(Naughty, home), examined=False)
    try:
        answers = executor.run(blocks(6, 1))
        next(answers)
        while leaves and not list(home.glob("done-*")):
            time.sleep(0.1)
        leaves or list(answers)
    except KeyboardInterrupt:
        print("pressed")
    finally:
        print("leaving", time.time(), flush=True)
        executor.close()
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize(("how", "deed"), [("leave", "hang"), ("press", "spin")])
def test_a_process_ends_at_once_though_its_workers_hang(tmp_path: Path, how: str, deed: str):
    app = Naughty(tmp_path).told({1: deed, 2: deed})
    settings = {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests/helpers"), str(ROOT)])}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path), how],
        env={key: value for key, value in environment(**settings).items() if key != "RAY_ADDRESS"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A group of its own, as a terminal's foreground job has; what starts the tests may have SIGINT ignored.
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while len(list(tmp_path.glob("done-*"))) < (2 if how == "press" else 1):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if how == "press":
            time.sleep(0.2)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to Ray's processes and the workers too
        began = time.time()
        out, err = process.communicate(timeout=PATIENCE_S)
        ended = time.time()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, (out, err)
    assert ("pressed" in out) == (how == "press")
    assert ended - max(began, float(out.split()[-1])) < AT_ONCE_S and ended - began < 2 * AT_ONCE_S
    assert "Traceback" not in out + err and "raylet" not in out + err
    deadline = time.monotonic() + 30
    while left := {pid for pid in app.processes() if not gone(int(pid))}:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
