"""Numbers as a reader wants them. Knows units; not what was measured."""

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from fed_lorac.pages.chart import Axis
from fed_lorac.reporting.intervals import interval_95, known

__all__ = [
    "byte_axis",
    "bytes_said",
    "listed",
    "log_axis",
    "mean_and_half",
    "percent",
    "power_said",
    "round_axis",
    "said",
    "share_said",
    "time_axis",
    "time_said",
    "wrapped",
]


_GAP = "\u00a0"
"""The space between a number and its unit, where no line breaks."""


def percent(share: float | None, half: float | None = None) -> str:
    """An accuracy of 0 to 1: "81.4 %", with half of its interval "81.4 ± 0.3 %"."""
    if share is None:
        return "not measured"
    return f"{100 * share:.1f}{_GAP}%" if half is None else f"{100 * share:.1f}{_GAP}±{_GAP}{100 * half:.1f}{_GAP}%"


def share_said(share: float | None) -> str:
    """A share of bytes, three digits: "0.853 %"."""
    return "not known" if share is None else f"{100 * share:.3g}{_GAP}%"


def bytes_said(count: float) -> str:
    """Bytes in units of a thousand: "218 kB"."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g}{_GAP}{unit}"


def said(value: float) -> str:
    """A number in three digits, without an exponent where it can be."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def wrapped(text: str, width: int = 24) -> str:
    """A long name on several lines."""
    return "\n".join(textwrap.wrap(text, width)) or text


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names in a sentence, the first of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def mean_and_half(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    """The mean of what was measured, and half of its 95 % interval; None of nothing, or of one."""
    found = known(values)
    if not found:
        return None, None
    half = interval_95(found)
    return fmean(found), None if math.isnan(half) else half


def log_axis(title: str, values: Sequence[float], tick: Callable[[float], str] | None = None) -> Axis:
    """A log axis that holds these values, with a tick at each power of ten, or at more where there are few."""
    return Axis(title, log=True, ticks={at: (tick or said)(at) for at in _ticks(values)})


def power_said(value: float) -> str:
    """A power of ten as "10⁻⁵"; anything between as digits times one."""
    power = math.floor(math.log10(value) + 1e-9)
    digits, raised = round(value / 10.0**power), str(power).translate(_RAISED)
    return f"10{raised}" if digits == 1 else f"{digits}·10{raised}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def time_axis(title: str, days: Sequence[float]) -> Axis:
    """A log axis of days, with ticks in the unit that fits each."""
    inside = {at: name for name, at in _TIMES.items() if min(days) <= at <= max(days)}
    return Axis(
        title,
        log=True,
        ticks=inside
        if len(inside) > 1
        else {at: time_said(at) for at in sorted(set(days))[:: max(1, len(set(days)) - 1)]},
    )


def time_said(days: float) -> str:
    """A time in the unit that fits it."""
    for unit, seconds in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if days * 86400 >= seconds:
            return f"{said(days * 86400 / seconds)}{_GAP}{unit}"
    return f"{said(days * 86400)}{_GAP}s"


def round_axis(rounds: Sequence[int]) -> Axis:
    """An axis of rounds, some of which have a tick."""
    return Axis("round", ticks={number: str(number) for number in rounds[:: max(1, -(-len(rounds) // 10))]})


_TIMES = {
    **{f"{s} s": s / 86400 for s in (0.001, 0.01, 0.1, 1, 10)},
    **{f"{m} min": m / 1440 for m in (1, 10)},
    **{f"{h} h": h / 24 for h in (1, 6)},
    **{f"{d:,} d": float(d) for d in (1, 10, 100, 1000, 10000, 100000)},
}


def byte_axis(title: str, values: Sequence[float], full: float | None) -> Axis:
    """A log axis of bytes, absolute, and under each tick the share of what full fine-tuning sends in fp32."""
    ticks = {at: bytes_said(at) + (f"\n{share_said(at / full)}" if full else "") for at in _ticks(values)}
    return Axis(title, log=True, ticks=ticks)


def _ticks(values: Sequence[float]) -> list[float]:
    low, high = math.log10(min(values)), math.log10(max(values))
    steps = (1, 2, 5) if high - low < 1.2 else (1, 3) if high - low < 2.5 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    every = max(1, len(powers) // 7)
    return [step * 10.0**power for power in powers[::every] for step in steps]
