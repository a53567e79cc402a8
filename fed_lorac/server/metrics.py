"""Numbers that cameras report, averaged. Knows Flower's records; not frames, nor who sent what."""

import math
from collections.abc import Iterable

from flwr.app import MetricRecord, RecordDict

__all__ = ["mean_metrics", "weighted_mean"]

_NOT_MEASURED = ("num-examples", "folded-round")


def weighted_mean(pairs: Iterable[tuple[float, float]]) -> float:
    """The mean of (value, weight), over the values that are finite; nan where there is none."""
    rows = [(value, weight) for value, weight in pairs if math.isfinite(value) and weight > 0]
    total = math.fsum(weight for _, weight in rows)
    return math.fsum(value * weight for value, weight in rows) / total if rows else math.nan


def mean_metrics(contents: Iterable[RecordDict]) -> MetricRecord | None:
    """Each number that cameras report, averaged by `num-examples` over those that report it; None where none does."""
    found: dict[str, list[tuple[float, float]]] = {}
    for metrics in (record for content in contents for record in content.metric_records.values()):
        examples = metrics.get("num-examples")
        for key, value in metrics.items():
            if key not in _NOT_MEASURED and isinstance(value, int | float) and isinstance(examples, int | float):
                found.setdefault(key, []).append((float(value), float(examples)))
    means = {key: mean for key, pairs in sorted(found.items()) if math.isfinite(mean := weighted_mean(pairs))}
    return MetricRecord(dict(means)) if means else None
