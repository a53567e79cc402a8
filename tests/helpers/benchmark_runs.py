"""A benchmark in a process of its own."""

import json
import subprocess
import sys
from typing import Any

from small_runs import ROOT, environment


def ran(name: str, *arguments: str, **extra: str) -> dict[str, Any]:
    """The JSON object that a benchmark prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--json", *arguments],
        env=environment(OMP_NUM_THREADS="1", **extra),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)  # nothing else is on stdout
    for key in ("date", "command", "machine", "device", "versions"):
        assert found[key]
    assert found["machine"]["cpu"] and found["machine"]["cores"] >= 1 and found["machine"]["ram_gib"] > 0
    return found
