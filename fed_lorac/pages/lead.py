"""What a page says first: one paragraph and four numbers. Knows what is reported; not how it is shown."""

from fed_lorac.pages.chart import Row
from fed_lorac.pages.figures.frontier import Point, cost_said, points
from fed_lorac.pages.figures.levels import free_and_full
from fed_lorac.pages.reported import Reported
from fed_lorac.pages.words import bytes_said, percent, share_said
from fed_lorac.reporting.intervals import known

__all__ = ["lead", "tiles"]


def lead(found: Reported) -> str:
    """What was run, what it gave, what it cost."""
    measured, said = points(found), [_what(found)]
    free, full = free_and_full(found)
    if free is not None:
        said.append(f"With nothing sent the fleet reaches {percent(free)}.")
    if full is not None:
        cost = f" for {bytes_said(found.full_bytes)} in fp32" if found.full_bytes else ""
        said.append(f"Full fine-tuning reaches {percent(full)}{cost}.")
    if measured:
        best = _best(measured)
        said.append(f"{_subject(found, best)} {percent(best.accuracy, best.half)} for {cost_said(best)}.")
        least = _cheapest(measured, 0.9)
        if least is not None and least is not best:
            said.append(
                f"The cheapest arm that keeps 90 % of full fine-tuning's gain is {least.arm.label}: "
                f"{percent(least.accuracy, least.half)} for {cost_said(least)}."
            )
        elif least is None and known(point.gain for point in measured if _sends_less(point)):
            said.append("No arm that sends less keeps 90 % of full fine-tuning's gain.")
    return " ".join(said)


def _what(found: Reported) -> str:
    first, seeds = found.runs[0].summary, len(found.seeds)
    cameras = first.get("cameras_measured", {}).get("of")
    weathers = ", ".join(name.replace("_", " ") for name in first["per_corruption"])
    fleet = f"{_count(cameras, 'camera')} on {first['data']}" if cameras else str(first["data"])
    what = "One run" if len(found.runs) == 1 else f"{len(found.runs)} runs: {_count(len(found.arms), 'arm')}"
    over = "" if len(found.runs) == 1 else f", {_count(seeds, 'seed')}"
    if not found.one_fleet:
        return f"{what}{over}, on several fleets or of several lengths, so arms cannot be compared one to one."
    changes = " Weather changes, so accuracies are means over the measured rounds." if found.over_rounds else ""
    return f"{what}{over}; {fleet} in {weathers}; {_count(first['rounds'], 'round')}.{changes}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _subject(found: Reported, best: Point) -> str:
    if len(found.arms) == 1:
        return f"{best.arm.label} reaches"
    return f"The most accurate arm{' that sends less' * _sends_less(best)}, {best.arm.label}, reaches"


def _best(measured: list[Point]) -> Point:
    """The most accurate arm that sends less than full fine-tuning does in fp32, where there is one."""
    less = [point for point in measured if _sends_less(point)]
    return max(less or measured, key=lambda point: point.accuracy)


def _sends_less(point: Point) -> bool:
    """Whether an arm is known to send less than full fine-tuning does in fp32."""
    return point.share is not None and point.share < 1


def _cheapest(measured: list[Point], gain: float) -> Point | None:
    enough = [
        point
        for point in measured
        if point.gain is not None and point.gain >= gain and (point.share is None or point.share < 1)
    ]
    return min(enough, key=lambda point: point.total_bytes, default=None)


def tiles(found: Reported) -> Row:
    """A few numbers by what they are."""
    measured = points(found)
    if not measured:
        return {"finished runs": f"{len(found.runs)}"}
    best = _best(measured)
    least = _cheapest(measured, 0.9)
    fewer = " with fewer bytes than full fine-tuning" * _sends_less(best)
    name = "accuracy" if len(found.arms) == 1 else f"most accurate{fewer}: {best.arm.label}"
    shown = {name: percent(best.accuracy)}
    free, _ = free_and_full(found)
    if free is not None:
        shown["with nothing sent"] = percent(free)
    if least is not None:
        shown[f"for 90 % of full fine-tuning's gain: {least.arm.label}"] = bytes_said(least.total_bytes)
        shown["of full fine-tuning's bytes in fp32, the same arm"] = share_said(least.share)
        shown["of full fine-tuning's bytes under the same codec"] = share_said(least.share_same_codec)
    else:
        shown["sent, up + down"] = bytes_said(best.total_bytes)
        shown["of full fine-tuning's bytes in fp32"] = share_said(best.share)
        shown["of full fine-tuning's bytes under the same codec"] = share_said(best.share_same_codec)
    return shown
