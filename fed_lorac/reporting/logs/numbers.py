"""What a log gets of a run: plain numbers by name. Knows rows and summaries; no library."""

from collections.abc import Iterator, Mapping
from typing import Any

from fed_lorac.records.ledger import Row

__all__ = ["of_round", "of_summary"]

_GROUPS = {"_bytes": "bytes", "_bytes_on_air": "bytes", "_j": "energy", "_s": "time", "seconds": "time"}
"""How a column ends, and the group that it stands in: libraries draw the names that have one beginning together."""


def of_round(row: Row) -> dict[str, float]:
    """The numbers of a round's row, those that were measured, each as `group/column`.

    `accuracy/gain` is beside them: accuracy less that of the zero-byte answer, in rounds that measure both.
    """
    found = {
        f"{_group(name)}/{name}": value
        for name, value in row.items()
        if name != "round" and isinstance(value, int | float) and not isinstance(value, bool)
    }
    if row["accuracy"] is not None and row["accuracy_zero_byte"] is not None:
        found["accuracy/gain"] = row["accuracy"] - row["accuracy_zero_byte"]
    return found


def of_summary(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a summary, each as `summary/key`, or `summary/key/key` where it is in a table there."""
    return dict(_flat("summary", {name: value for name, value in summary.items() if name != "config"}))


def _group(name: str) -> str:
    if name.startswith("full_"):
        return "full"
    if "accuracy" in name:
        return "accuracy"
    return next((group for end, group in _GROUPS.items() if name.endswith(end)), "round")


def _flat(path: str, value: object) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for name, its in value.items():
            yield from _flat(f"{path}/{name}", its)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value
