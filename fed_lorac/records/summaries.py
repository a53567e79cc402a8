"""A finished run's summary, read back, of this version or an older one. Knows a run's files and keys; not tables.

Older summaries have no "config", which then stands in the folder's config.toml, and know full fine-tuning's bytes under
the run's own codec alone. Where that is fp32 both ways they are those in fp32; else these are unknown, None.
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fed_lorac.config.load import flatten
from fed_lorac.errors import RunError
from fed_lorac.records.ledger import CAMERAS_FILE, ROUNDS_FILE, each_row, read_rows
from fed_lorac.records.run_folder import CONFIG_FILE, SUMMARY_FILE, meant, summary_in

__all__ = [
    "NO_BATCH_NORM",
    "Summary",
    "base_of",
    "camera_accuracies",
    "downlinks",
    "free_accuracy",
    "has_batch_norm",
    "read_summary",
    "weather_changes",
    "went_on",
]

Summary = Mapping[str, Any]

NO_BATCH_NORM = "no batch norm"
"""What stands for the accuracy under each camera's own statistics, where there are none to take."""


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of the run in a folder.

    Raises:
        RunError: no finished run is there, its files cannot be read (an UnreadableError), or its ledger lacks rounds
            that the summary is of.
    """
    try:
        found = summary_in(folder)
        if not isinstance(found, dict) or "total_bytes" not in found:
            raise ValueError("it is no run's summary")
        if "config" not in found:
            found["config"] = _config(folder)
    except (OSError, ValueError) as cause:
        if not folder.is_dir():
            raise RunError(f"A finished run has a folder; {folder} is not there. Check the path.") from None
        remedy = meant(folder) or " Give the folder of a run's --out."
        if (folder / "runs").is_dir():
            being_tuned = (folder / "tuning.parquet").is_file() and not (folder / "study.parquet").is_file()
            remedy = (
                " It holds a study whose tuning goes on: wait for its first run."
                if being_tuned
                else f" It holds a study: give it alone, or its runs, {folder}/runs/*."
            )
        came = " has none" if isinstance(cause, FileNotFoundError) else f": {cause}"
        raise RunError(f"A finished run has a {SUMMARY_FILE}; {folder}{came}.{remedy}") from None
    _check_rounds(folder, found)
    if "full_fp32_total_bytes" not in found:
        _add_fp32(found)
    _count_frames(found)
    return found


def camera_accuracies(folder: Path, rounds: int) -> dict[int, float]:
    """Camera -> the accuracy that was measured last up to the round `rounds`, 0 to 1; empty where the run's version did
    not record them. A run that goes on has rows of later rounds than its summary is of."""
    file = folder / CAMERAS_FILE
    found = (row for row in (each_row(file) if file.is_file() else ()) if row["round"] <= rounds)
    return {row["camera"]: row["accuracy"] for row in found if row.get("accuracy") is not None}


def base_of(summary: Summary) -> str | None:
    """The fingerprint of the network that the run began with; None where its version did not record it."""
    found: str | None = summary.get("base", {}).get("fingerprint")
    return found


def went_on(summary: Summary) -> str | None:
    """A sentence on a run that went on with other rounds than it was asked for at first, under a falling learning rate;
    None of any other."""
    if not (before := summary.get("rounds_asked_before")):
        return None
    return (
        f"It was asked for {', then '.join(map(str, before))} rounds before it went on to {summary['rounds']}: the "
        "learning rate falls over all rounds, so it differs from a run that was asked for all of them at once."
    )


def has_batch_norm(summary: Summary) -> bool:
    """Whether the run's network has batch norm, as that of an older summary, which does not say, is taken to have."""
    return bool(summary.get("base", {}).get("batch_norm", True))


def weather_changes(summary: Summary) -> bool:
    """Whether cameras' weather changes from round to round, so that one round's accuracy does not say all."""
    return bool(summary.get("schedule", "constant") != "constant")


def free_accuracy(summary: Summary, *, over_rounds: bool = False) -> float | None:
    """What the fleet reaches with nothing sent or trained: under its own statistics, or, where the network has no batch
    norm, with the base as it comes; in the last round, or on average over the measured ones. None: not measured."""
    arm = "zero_byte" if has_batch_norm(summary) else "source"
    found: float | None = summary["over_rounds"][arm] if over_rounds else summary[f"{arm}_accuracy"]
    return found


def downlinks(summaries: Iterable[Summary]) -> str:
    """How updates go down in these runs, as a sentence: bytes, energy and simulated time are of that."""
    said = "Updates go down by"
    ways = dict.fromkeys(one.get("downlink", "unicast") for one in summaries)
    told = {
        "unicast": "unicast, a copy to each camera",
        "multicast": "multicast, once per link and again to cameras that ask",
    }
    if len(ways) < 2:
        (way,) = ways or ("unicast",)
        return f"{said} {told.get(way, way)}."
    return f"{said} unicast or by multicast, each run as its downlink says: {'; '.join(ways)}."


def _check_rounds(folder: Path, found: Summary) -> None:
    """A summary beside the ledger of another copy of its run, which was interrupted, speaks of more rounds."""
    file = folder / ROUNDS_FILE
    held = len(read_rows(file).rows) if file.is_file() else None
    if held is not None and held < found.get("rounds", 0):
        raise RunError(
            f"A summary is of the rounds in the ledger beside it; {folder} has a summary of {found['rounds']} rounds "
            f"and a ledger of {held}. If two copies of the run were put together, copy the finished one whole; else "
            "run it again in another folder."
        )


def _config(folder: Path) -> dict[str, Any]:
    """The run's settings as a summary of this version has them, `section.key`; none where the file was not kept."""
    file = folder / CONFIG_FILE
    return flatten(tomllib.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def _count_frames(found: dict[str, Any]) -> None:
    """Totals are of frames; an older summary's were of Flower's messages around them."""
    sums = found["bytes"]
    for whose in ("", "full_", "full_fp32_"):
        for name, down in (("total", "downlink"), ("multicast", "multicast_downlink")):
            ways = [sums.get(f"{whose}{way}_frame_bytes") for way in ("uplink", down)]
            if None not in ways:
                found[f"{whose}{name}_bytes"] = sum(ways)


def _add_fp32(found: dict[str, Any]) -> None:
    """Full fine-tuning's bytes and times in fp32, beside those under the run's codec."""
    exact = all(found["config"].get(f"codec.{way}") == "fp32" for way in ("up", "down"))

    def same(value: Any) -> Any:
        return value if exact else None

    found["full_fp32_total_bytes"] = same(found["full_total_bytes"])
    for column in (f"{way}_{layer}_bytes" for way in ("uplink", "downlink") for layer in ("frame", "message")):
        found["bytes"][f"full_fp32_{column}"] = same(found["bytes"].get(f"full_{column}"))
    for times in (*found["air_time_s"].values(), *found.get("days", {}).values()):
        times["full_fp32"] = same(times["full"])
