"""Which numbers there are, and how sure their mean is. Knows numbers; not what they measure."""

import math
from collections.abc import Iterable, Sequence

__all__ = ["interval_95", "known"]


def known(values: Iterable[float | None]) -> list[float]:
    """Those that were measured: neither None nor nan."""
    return [value for value in values if value is not None and not math.isnan(value)]


def interval_95(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of a mean, by Student's t; nan of fewer than two values."""
    from scipy import special  # noqa: PLC0415

    count = len(values)
    if count < 2:
        return math.nan
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return float(special.stdtrit(count - 1, 0.975)) * deviation / math.sqrt(count)
