"""Runs that are interrupted and gone on with, and whether they came to the same end as one that was not."""

import json
from pathlib import Path

from small_runs import rows

from fed_lorac.reporting.watch import Watch

TENSORS = ("adapter.safetensors", "model.safetensors", "cameras.safetensors")


class Ended(Watch):
    """Ctrl-C after a round."""

    def __init__(self, after: int) -> None:
        self.after, self.came = after, 0

    def resumed(self, rounds: int) -> None:
        self.came = rounds

    def round(self, row: dict[str, object], of: int) -> None:
        if row["round"] == self.after:
            raise KeyboardInterrupt


def check_equal(found: Path, whole: Path) -> None:
    """All that a run leaves, byte for byte, but for the seconds that it took."""
    for name in TENSORS:
        assert (found / name).read_bytes() == (whole / name).read_bytes(), name
    assert rows(found / "rounds.jsonl", "seconds") == rows(whole / "rounds.jsonl", "seconds")
    assert rows(found / "cameras.jsonl") == rows(whole / "cameras.jsonl")
    a, b = (json.loads((folder / "summary.json").read_text()) for folder in (found, whole))
    assert a | {"seconds": 0} == b | {"seconds": 0} and not a["interrupted"]
    assert not list(found.rglob(".*.tmp"))
