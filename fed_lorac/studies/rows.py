"""What a study found, as tidy rows: one a run, and one a run and round. Knows summaries and ledgers; not who runs what.

`gain_recovered` is the share of full fine-tuning's gain over zero-byte that a run keeps:
(accuracy - zero-byte) / (full - zero-byte), or over the source where the network has no batch norm. Full fine-tuning is
the study's own run of it over the same fleet and seed, from labels; where there are several, that in fp32, then that of
the settings which are the most accurate over the seeds.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fed_lorac.config.resumed import WITHOUT_EFFECT
from fed_lorac.records.ledger import ROUNDS_FILE, read_rows
from fed_lorac.records.summaries import Summary, base_of, free_accuracy, read_summary, weather_changes
from fed_lorac.reporting.gain import gain_recovered, is_full, rank_of_full, recovered_share
from fed_lorac.studies.definition import Trial

__all__ = ["Finding", "Row", "loose_rows", "round_rows", "run_rows"]

Row = dict[str, Any]

_OF_THE_METHOD = ("adapter.", "strategy.", "codec.", "local.", "batch_norm.")
"""Settings in which an arm may differ from full fine-tuning and still be held against it."""

_SEED = ("run.seed",)

_OVER_ROUNDS = ("accuracy_over_rounds", "zero_byte_over_rounds", "full_over_rounds", "gain_over_rounds")

_LAYERS = [f"{way}_{what}_bytes" for way in ("uplink", "downlink") for what in ("payload", "frame", "message")]
"""What is billed: values, frames (which totals are of), Flower's messages around them."""


@dataclass(frozen=True)
class Finding:
    """How far a trial came: "finished", "failed" (with the error), "stopped" (by a search) or "waiting"; and where."""

    trial: Trial
    folder: Path
    status: str
    error: str = ""
    seconds: float | None = None

    @property
    def summary(self) -> Summary | None:
        """What the run found, where it came to its end, or was stopped."""
        return read_summary(self.folder) if self.status in ("finished", "stopped") else None

    @property
    def run(self) -> str:
        """What names the run in tables: the digest that its folder has, of the version that began it."""
        return self.folder.name.rpartition("-")[2]


def run_rows(findings: Sequence[Finding]) -> list[Row]:
    """One row a run, in the study's order; what is not known is None."""
    summaries = [finding.summary for finding in findings]
    configs = [finding.trial.config.to_flat() for finding in findings]
    fleets = list(map(_fleet, configs, summaries))
    full = _full_by_fleet(fleets, summaries)
    return [
        _row(finding, found, full.get(fleet)) for finding, found, fleet in zip(findings, summaries, fleets, strict=True)
    ]


def loose_rows(runs: Mapping[str, Summary]) -> list[Row]:
    """One row a finished run that no study holds, by the name of each, with a study's columns."""
    fleets = [_fleet(found["config"], found) for found in runs.values()]
    full = _full_by_fleet(fleets, list(runs.values()))
    return [
        {"arm": found["label"], "seed": found["seed"], "run": name, **_measured(found, full.get(fleet))}
        for (name, found), fleet in zip(runs.items(), fleets, strict=True)
    ]


def round_rows(findings: Iterable[Finding]) -> list[Row]:
    """One row a finished run and round: the arm, the seed, the point of the grid, then the ledger's columns."""
    return [
        {**_who(finding), **{key: value for key, value in row.items() if not isinstance(value, list | dict)}}
        for finding in findings
        if finding.status == "finished"
        for row in read_rows(finding.folder / ROUNDS_FILE).rows
    ]


def _who(finding: Finding) -> Row:
    trial = finding.trial
    said = {**trial.point, **trial.tuned}
    point = {key: value if isinstance(value, int | float | str) else str(value) for key, value in said.items()}
    return {"arm": trial.arm, "seed": trial.seed, **point, "run": finding.run}


def _row(finding: Finding, found: Summary | None, full: Summary | None) -> Row:
    said = {"status": finding.status, "error": finding.error, "seconds": finding.seconds}
    return {**_who(finding), **_measured(found, full), **said}


def _measured(found: Summary | None, full: Summary | None) -> Row:
    s: Mapping[str, Any] = found or {"bytes": {}, "clean_accuracy": {}}
    total = s.get("total_bytes")
    return {
        "label": s.get("label"),
        "base": base_of(s),
        "rounds": s.get("rounds"),
        **{name: s["bytes"].get(name) for name in _LAYERS},
        "downlink": s.get("downlink", "unicast") if found else None,
        "multicast_bytes": s.get("multicast_bytes"),
        "total_bytes": total,
        "share_of_full_fp32": _share(total, s.get("full_fp32_total_bytes")),
        "share_of_full_same_codec": _share(total, s.get("full_total_bytes")),
        "accuracy": s.get("adapted_accuracy"),
        "accuracy_clean": s["clean_accuracy"].get("adapted"),
        "accuracy_worst_weather": _worst(s),
        "source_accuracy": s.get("source_accuracy"),
        "zero_byte_accuracy": s.get("zero_byte_accuracy"),
        **_over_rounds(s, full),
        "online_accuracy": (s.get("without_labels") or {}).get("online_accuracy"),
        "full_accuracy": full["adapted_accuracy"] if full else None,
        "gain_recovered": gain_recovered(found, full) if found and full else None,
    }


def _over_rounds(summary: Summary, full: Summary | None) -> Row:
    """Means over the measured rounds, where the weather changes from one to the next; None where it stays."""
    if not weather_changes(summary) or "over_rounds" not in summary:
        return dict.fromkeys(_OVER_ROUNDS)
    own = summary["over_rounds"]
    best = full.get("over_rounds", {}).get("adapted") if full else None
    gain = recovered_share(free_accuracy(summary, over_rounds=True), own["adapted"], best)
    return dict(zip(_OVER_ROUNDS, (own["adapted"], own["zero_byte"], best, gain), strict=True))


def _share(total: int | None, full: int | None) -> float | None:
    return None if total is None or not full else total / full


def _worst(summary: Mapping[str, Any]) -> float | None:
    found = [its.get("adapted") for its in summary.get("per_corruption", {}).values()]
    return min((value for value in found if value is not None), default=None)


def _full_by_fleet(fleets: Sequence[Hashable], summaries: Sequence[Summary | None]) -> dict[Hashable, Summary]:
    """Full fine-tuning's summary over each fleet and seed: of several that which gains are held against."""
    full = [(fleet, its) for fleet, its in zip(fleets, summaries, strict=True) if its is not None and is_full(its)]
    alike: dict[Hashable, list[Summary]] = {}
    for _, its in full:
        alike.setdefault(_settings(its["config"], _SEED), []).append(its)
    full.reverse()  # of equals the first
    return dict(sorted(full, key=lambda one: rank_of_full(alike[_settings(one[1]["config"], _SEED)])))


def _fleet(settings: Mapping[str, Any], found: Summary | None) -> Hashable:
    """What runs over one fleet and seed share: of all their settings, and the network that they began with."""
    return _settings(settings, _OF_THE_METHOD), base_of(found or {})


def _settings(settings: Mapping[str, Any], free: tuple[str, ...]) -> Hashable:
    return tuple(
        (key, value) for key, value in sorted(settings.items()) if not key.startswith((*free, *WITHOUT_EFFECT))
    )
