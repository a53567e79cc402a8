"""Several runs side by side, as Markdown. Knows summaries; not models, cameras or messages."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fed_lorac.errors import RunError

__all__ = ["compared", "recovered_share"]

Summary = Mapping[str, Any]
_SAME = ("data", "seed", "rounds", "base")


def recovered_share(zero_byte: float, method: float, full: float) -> float | None:
    """The share of full fine-tuning's gain over zero-byte that a method recovers; None where there is no gain."""
    return (method - zero_byte) / (full - zero_byte) if full > zero_byte else None


def compared(summaries: Sequence[Summary], targets: Sequence[Summary] | None = None) -> str:
    """A Markdown table of runs over one fleet: accuracy, bytes, days of sending on the fleet's slowest link, and the
    share of full fine-tuning's gain recovered. `targets`: what reaching an accuracy took each (`target.reached`).

    Raises:
        RunError: the runs differ in data, base, seed, rounds, weather or links, so that their numbers do not compare.
    """
    first = summaries[0]
    _check_alike(summaries)
    weathers = list(first["per_corruption"])
    full = next((s["adapted_accuracy"] for s in summaries if _is_full(s)), None)
    link = max(first["days"], key=lambda name: first["days"][name]["full"])
    header = ["", *weathers, "fleet mean", "clear air", "bytes up + down", "of full", f"days on {link}"]
    header += ["gain recovered", *([f"bytes to {targets[0]['accuracy']:.1%}"] if targets else [])]
    lines = [_row(header), _row(["---", *["---:"] * (len(header) - 1)])]
    for arm, name in (("source", "source"), ("zero_byte", "local batch norm, nothing sent")):
        recovered = "0 %" if arm == "zero_byte" and full else ""
        at_no_cost = [""] if targets else []
        lines.append(_row([name, *_accuracies(first, arm), "0", "0 %", "0", recovered, *at_no_cost]))
    for i, s in enumerate(summaries):
        took = [_took(targets[i])] if targets else []
        lines.append(_row([s["label"], *_accuracies(s, "adapted"), *_costs(s, link), _recovered(s, full), *took]))
    return "\n".join(lines)


def _is_full(summary: Summary) -> bool:
    """Whether it is full fine-tuning that was averaged: cameras may train every parameter each for itself, too."""
    return summary["method"] == "full" and summary["strategy"] in ("full", "plain")


def _took(target: Summary) -> str:
    return "not reached" if target["bytes"] is None else f"{target['bytes']:,} by round {target['rounds']}"


def _check_alike(summaries: Iterable[Summary]) -> None:
    facts = [_facts(summary) for summary in summaries]
    for name in facts[0]:
        if any(fact[name] != facts[0][name] for fact in facts):
            raise RunError(
                f"Runs compare if they share data, base, seed, rounds, weather and links; they differ in {name}: "
                f"{[fact[name] for fact in facts]}. Run them again from one config."
            )


def _facts(summary: Summary) -> dict[str, Any]:
    same = {name: summary[name] for name in _SAME}
    return same | {"weather": list(summary["per_corruption"]), "links": list(summary["days"])}


def _accuracies(summary: Summary, arm: str) -> Iterator[str]:
    yield from (f"{100 * means[arm]:.1f}" for means in summary["per_corruption"].values())
    yield f"{100 * summary[f'{arm}_accuracy']:.1f}"
    clean = summary["clean_accuracy"][arm]
    yield "-" if clean is None else f"{100 * clean:.1f}"


def _costs(summary: Summary, link: str) -> tuple[str, str, str]:
    share = summary["total_bytes"] / summary["full_total_bytes"]
    return f"{summary['total_bytes']:,}", f"{100 * share:.1f} %", f"{summary['days'][link]['adapter']:.3g}"


def _recovered(summary: Summary, full: float | None) -> str:
    share = None if full is None else recovered_share(summary["zero_byte_accuracy"], summary["adapted_accuracy"], full)
    return "" if share is None else f"{100 * share:.0f} %"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
