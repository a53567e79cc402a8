"""The table at the end of a page: a row an arm. Knows what is reported; not HTML."""

from collections.abc import Callable

from fed_lorac.pages.reported import Arm, Reported
from fed_lorac.pages.words import mean_and_half, percent, share_said, time_said
from fed_lorac.records.summaries import downlinks
from fed_lorac.reporting.cells import SOME_SEEDS, mean_of_some, of_some_seeds
from fed_lorac.reporting.intervals import known

__all__ = ["note", "table"]

_NOTE = (
    "Mean ± half of the 95 % interval over the seeds. Bytes are frames up and down, all cameras and rounds. "
    "Radio time: a camera's uplink of the whole run on the slowest link of the fleet."
)


def note(found: Reported) -> str:
    """What a reader must know beside the numbers."""
    over = ' Clear air and worst weather are of the last round, "nothing sent" and gains over the rounds.'
    gains = [arm.values(found.column("gain_recovered")) for arm in found.arms]
    some = f" {SOME_SEEDS}" if any(map(of_some_seeds, gains)) else ""
    return f"{_NOTE}{over * found.over_rounds}{some} {downlinks(run.summary for run in found.runs)}"


def table(found: Reported) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row of cells an arm."""
    over = {"over the rounds": "accuracy_over_rounds"} if found.over_rounds else {}
    last = "last round" if found.over_rounds else "accuracy"
    accuracies = {
        name: lambda arm, column=column: percent(*mean_and_half(arm.values(column)))
        for name, column in {**over, last: "accuracy"}.items()
    }
    cells: dict[str, Callable[[Arm], str]] = {
        "arm": lambda arm: arm.label,
        "seeds": _seeds,
        **accuracies,
        "clear air": lambda arm: percent(*mean_and_half(arm.values("accuracy_clean"))),
        "worst weather": lambda arm: percent(mean_and_half(arm.values("accuracy_worst_weather"))[0]),
        "nothing sent": lambda arm: percent(mean_and_half(map(found.free_accuracy, arm.runs))[0]),
        "gain recovered": lambda arm: _gain(arm.values(found.column("gain_recovered"))),
        "bytes up + down": lambda arm: f"{mean_and_half(arm.values('total_bytes'))[0] or 0:,.0f}",
        "of full, fp32": lambda arm: share_said(mean_and_half(arm.values("share_of_full_fp32"))[0]),
        "of full, same codec": lambda arm: share_said(mean_and_half(arm.values("share_of_full_same_codec"))[0]),
        "radio time": _days,
    }
    return list(cells), [[cell(arm) for cell in cells.values()] for arm in found.arms]


def _seeds(arm: Arm) -> str:
    return f"{len(arm.runs)} of {len(arm.runs) + arm.not_finished}" if arm.not_finished else f"{len(arm.runs)}"


def _gain(shares: list[float | None]) -> str:
    """With half of its interval, and of how many runs it is, where full fine-tuning gained nothing in some."""
    return mean_of_some([None if share is None else 100 * share for share in shares], "{:.0f}", " %").text


def _days(arm: Arm) -> str:
    slowest = [max(known(its["adapter"] for its in run.summary["days"].values()), default=None) for run in arm.runs]
    mean = mean_and_half(slowest)[0]
    return "-" if not mean else time_said(mean)
