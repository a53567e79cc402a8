"""What full fine-tuning gains, and the share of it that a run recovers. Knows summaries; not tables."""

from collections.abc import Sequence
from statistics import fmean

from fed_lorac.records.summaries import Summary, free_accuracy

__all__ = ["gain_recovered", "is_full", "is_in_fp32", "rank_of_full", "recovered_share"]


def recovered_share(free: float | None, method: float | None, full: float | None) -> float | None:
    """The share of full fine-tuning's gain over what is free (`free_accuracy`) that a method recovers; None where one
    of the three accuracies was not measured, or there is no gain."""
    if free is None or method is None or full is None:
        return None
    return (method - free) / (full - free) if full > free else None


def gain_recovered(own: Summary, full: Summary) -> float | None:
    """The share of the gain of `full` that a run recovers, over what was free in the run itself; see
    `recovered_share`."""
    return recovered_share(free_accuracy(own), own["adapted_accuracy"], full["adapted_accuracy"])


def is_full(summary: Summary) -> bool:
    """Whether it is full fine-tuning from labels that was averaged: cameras may train every parameter each for itself,
    too, or without labels."""
    from_labels = summary["config"].get("local.objective", "labels") == "labels"
    return from_labels and (summary["method"], summary["strategy"]) == ("full", "fedavg")


def is_in_fp32(summary: Summary) -> bool:
    """Whether full fine-tuning sends under the run's codec what it sends in fp32."""
    return bool(summary["full_total_bytes"] == summary["full_fp32_total_bytes"])


def rank_of_full(runs: Sequence[Summary]) -> tuple[bool, float]:
    """What runs of full fine-tuning that differ in their seed alone are ordered by, where there are several such rows:
    gains are held against the highest. In fp32 first, then the most accurate on average, so that none is flattered."""
    measured = [run["adapted_accuracy"] for run in runs if run["adapted_accuracy"] is not None]
    return all(map(is_in_fp32, runs)), fmean(measured) if measured else -1.0
