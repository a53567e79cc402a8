"""Several runs side by side, as Markdown. Knows summaries; not models, cameras or messages."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fed_lorac.errors import RunError

__all__ = ["compared", "recovered_share"]

Summary = Mapping[str, Any]
_SAME = ("data", "seed", "rounds", "per_corruption", "base")


def recovered_share(zero_byte: float, method: float, full: float) -> float | None:
    """The share of full fine-tuning's gain over zero-byte that a method recovers; None where there is no gain."""
    return (method - zero_byte) / (full - zero_byte) if full > zero_byte else None


def compared(summaries: Sequence[Summary]) -> str:
    """A Markdown table of runs over one fleet: accuracy, bytes, and the share of full fine-tuning's gain recovered.

    Raises:
        RunError: the runs differ in data, base, seed, rounds or weather, so that their numbers do not compare.
    """
    first = summaries[0]
    _check_alike(summaries)
    weathers = list(first["per_corruption"])
    full = next((s["adapted_accuracy"] for s in summaries if s["method"] == "full"), None)
    header = ["", *weathers, "fleet mean", "clear air", "bytes up + down", "of full", "gain recovered"]
    lines = [_row(header), _row(["---", *["---:"] * (len(header) - 1)])]
    for arm, name in (("source", "source"), ("zero_byte", "local batch norm, nothing sent")):
        lines.append(_row([name, *_accuracies(first, arm), "0", "0 %", "0 %" if arm == "zero_byte" and full else ""]))
    lines += [_row([s["label"], *_accuracies(s, "adapted"), *_costs(s), _recovered(s, full)]) for s in summaries]
    return "\n".join(lines)


def _check_alike(summaries: Iterable[Summary]) -> None:
    facts = [_facts(summary) for summary in summaries]
    for name in _SAME:
        if any(fact[name] != facts[0][name] for fact in facts):
            raise RunError(
                f"Runs compare if they share data, base, seed, rounds and weather; they differ in {name}: "
                f"{[fact[name] for fact in facts]}. Run them again from one config."
            )


def _facts(summary: Summary) -> dict[str, Any]:
    return {name: summary[name] for name in _SAME} | {"per_corruption": list(summary["per_corruption"])}


def _accuracies(summary: Summary, arm: str) -> Iterator[str]:
    yield from (f"{100 * means[arm]:.1f}" for means in summary["per_corruption"].values())
    yield f"{100 * summary[f'{arm}_accuracy']:.1f}"
    clean = summary["clean_accuracy"][arm]
    yield "-" if clean is None else f"{100 * clean:.1f}"


def _costs(summary: Summary) -> tuple[str, str]:
    return f"{summary['total_bytes']:,}", f"{100 * summary['total_bytes'] / summary['full_total_bytes']:.1f} %"


def _recovered(summary: Summary, full: float | None) -> str:
    share = None if full is None else recovered_share(summary["zero_byte_accuracy"], summary["adapted_accuracy"], full)
    return "" if share is None else f"{100 * share:.0f} %"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
