"""What full fine-tuning gains, and the share of it that a run recovers. Knows summaries; not tables."""

from fed_lorac.records.summaries import Summary, free_accuracy

__all__ = ["gain_recovered", "is_full", "is_in_fp32", "recovered_share"]


def recovered_share(free: float, method: float, full: float) -> float | None:
    """The share of full fine-tuning's gain over what is free (`free_accuracy`) that a method recovers; None where there
    is no gain."""
    return (method - free) / (full - free) if full > free else None


def gain_recovered(own: Summary, full: Summary) -> float | None:
    """The share of the gain of `full` that a run recovers, over what was free in the run itself; None where one of the
    accuracies was not measured, or there is no gain."""
    free, adapted, best = free_accuracy(own), own["adapted_accuracy"], full["adapted_accuracy"]
    return None if free is None or adapted is None or best is None else recovered_share(free, adapted, best)


def is_full(summary: Summary) -> bool:
    """Whether it is full fine-tuning from labels that was averaged: cameras may train every parameter each for itself,
    too, or without labels."""
    from_labels = summary["config"].get("local.objective", "labels") == "labels"
    return from_labels and (summary["method"], summary["strategy"]) == ("full", "fedavg")


def is_in_fp32(summary: Summary) -> bool:
    """Whether full fine-tuning sends under the run's codec what it sends in fp32."""
    return bool(summary["full_total_bytes"] == summary["full_fp32_total_bytes"])
