"""A study's table for people: an arm a row, mean and interval over its seeds. Knows a study's rows; not runs."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fed_lorac.reporting.cells import markdown_line
from fed_lorac.studies.result import StudyResult

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["interval_95", "study_table"]

_MEASURED: dict[str, tuple[str, str, float]] = {
    "accuracy": ("accuracy", "{:.1f}", 100),
    "clear air": ("accuracy_clean", "{:.1f}", 100),
    "zero-byte": ("zero_byte_accuracy", "{:.1f}", 100),
    "gain recovered": ("gain_recovered", "{:.0f}", 100),
    "bytes up + down": ("total_bytes", "{:,.0f}", 1),
    "of full, fp32": ("share_of_full_fp32", "{:.2f}", 100),
    "of full, same codec": ("share_of_full_same_codec", "{:.2f}", 100),
}
"""Header -> the column, how a value is written, and what it is multiplied by."""
_IN_PERCENT = {"gain recovered", "of full, fp32", "of full, same codec"}


def interval_95(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of a mean, by Student's t; nan of fewer than two values."""
    from scipy import stats  # noqa: PLC0415

    count = len(values)
    if count < 2:
        return math.nan
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return float(stats.t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)


def study_table(study: StudyResult) -> str:
    """The study as Markdown: each arm and point of the grid is a row, the mean over its seeds ± half the 95 % interval.

    Failed runs and runs to come are counted in the column of seeds; failed ones are named below the table.
    """
    runs = study.runs
    point = [name for name in runs.columns if "." in name]
    head = ["arm", *point, "seeds", *_MEASURED]
    lines = [markdown_line(head), markdown_line(["---", *["---:"] * (len(head) - 1)])]
    for key, group in runs.groupby(["arm", *point], sort=False, dropna=False):
        lines.append(markdown_line([*map(_said, key), *_cells(group)]))
    lines += ["", "Accuracy in per cent. a ± b: mean over the seeds, half of its 95 % confidence interval."]
    failed = runs[runs.status == "failed"]
    lines += [f"- failed: {row.arm}, seed {row.seed}: {row.error}" for row in failed.itertuples()]
    return "\n".join(lines)


def _cells(group: "pd.DataFrame") -> list[str]:
    done = group[group.status == "finished"]
    seeds = f"{len(done)}" if len(done) == len(group) else f"{len(done)} of {len(group)}"
    return [seeds, *(_cell(done[how[0]].dropna().tolist(), name, *how[1:]) for name, how in _MEASURED.items())]


def _cell(values: Sequence[float], name: str, form: str, by: float) -> str:
    if not values:
        return "-"
    scaled, unit = [by * value for value in values], " %" * (name in _IN_PERCENT)
    mean = form.format(math.fsum(scaled) / len(scaled))
    spread = "" if len(set(scaled)) == 1 else f" ± {form.format(interval_95(scaled))}"
    return f"{mean}{spread}{unit}"


def _said(value: object) -> str:
    import pandas as pd  # noqa: PLC0415

    return "" if pd.isna(value) else str(value)  # type: ignore[call-overload]
