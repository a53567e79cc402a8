"""What arms are held against: nothing sent, and full fine-tuning. Knows what is reported; not how it is drawn."""

from collections.abc import Mapping, Sequence

from fed_lorac.pages.chart import Axis, Level
from fed_lorac.pages.reported import Reported
from fed_lorac.pages.words import listed, percent
from fed_lorac.reporting.intervals import known

__all__ = ["accuracy_axis", "below", "free_and_full", "levels"]

_LEAST_GAP = 0.02


def free_and_full(found: Reported) -> tuple[float | None, float | None]:
    """What the fleet reaches with nothing sent, and with full fine-tuning, means over the seeds; None: not known, or
    not one for all runs of a seed."""
    full = found.column("full_accuracy")
    return found.by_seed(map(found.free_accuracy, found.runs)), found.by_seed(run.row[full] for run in found.runs)


def levels(found: Reported) -> list[Level]:
    """Both as lines across a figure."""
    named = zip(("nothing sent (zero-byte)", "full fine-tuning"), free_and_full(found), strict=True)
    return [Level(f"{name}, {percent(at)}", at) for name, at in named if at is not None]


def accuracy_axis(found: Reported, title: str, values: Sequence[float]) -> Axis:
    """An axis of accuracies. Arms that collapsed do not flatten the others: it begins three of full fine-tuning's gains
    below nothing sent, where some lie further down."""
    low, lines = _lowest(found), known(free_and_full(found))
    if low is None or min(values) >= low:
        return Axis(title, percent=True)
    high = max([*values, *lines])
    return Axis(title, percent=True, span=(low, high + 0.05 * (high - low)))


def below(found: Reported, accuracies: Mapping[str, float]) -> list[str]:
    """A sentence about the arms that lie under such an axis, where there are any."""
    low = _lowest(found)
    names = [f"{name} ({percent(value)})" for name, value in accuracies.items() if low is not None and value < low]
    return [f"Below the figure: {listed(names)}."] if names else []


def _lowest(found: Reported) -> float | None:
    free, full = free_and_full(found)
    return None if free is None else free - 3 * max((full or 0.0) - free, _LEAST_GAP)
