"""Tables for people, out of a run's summary. Knows numbers and rich; not models, cameras or messages."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from fed_lorac.records.summaries import NO_BATCH_NORM, has_batch_norm, weather_changes, went_on

if TYPE_CHECKING:
    from fed_lorac.experiment.doctor import Facts
    from fed_lorac.grid.examination import Checkup

__all__ = ["accuracy_table", "bytes_table", "methods_tables", "show_checkup", "show_run"]

ARMS = {"source": "source", "zero_byte": "zero-byte", "adapted": "adapted"}


def show_run(console: Console, summary: Mapping[str, Any]) -> None:
    """Everything a run's user wants at its end: accuracies, bytes, and what to know before trusting them."""
    console.print(accuracy_table(summary), bytes_table(summary))
    for line in notes(summary):
        console.print(line)


def accuracy_table(summary: Mapping[str, Any]) -> RenderableType:
    """Accuracy in per cent by corruption, the fleet's mean, and in clear air, and over how many cameras each mean is.

    A mean over fewer cameras than its row has gives their number: "75.8 (3)".
    """
    rounds = f"{summary['rounds']} round{'s' * (summary['rounds'] != 1)}"
    table = Table(title=f"Accuracy, % ({escape(summary['data'])}, {rounds})")
    table.add_column("corruption")
    table.add_column("cameras", justify="right")
    for arm in ARMS.values():
        table.add_column(arm, justify="right")
    measured = summary.get("cameras_measured", {})  # an older summary has none
    by_weather = measured.get("per_corruption", {})
    missing = {} if has_batch_norm(summary) else {"zero_byte": NO_BATCH_NORM}
    for weather, means in summary["per_corruption"].items():
        table.add_row(weather, *_means(means, by_weather.get(weather, {}), missing))
    table.add_section()
    fleet, of = {arm: summary[f"{arm}_accuracy"] for arm in ARMS}, {"of": measured.get("of")}
    table.add_row("fleet mean", *_means(fleet, measured, missing), style="bold")
    if errors := summary.get("standard_error"):
        table.add_row("standard error", "", *(_percent(errors[arm]) for arm in ARMS))
    table.add_row("clear air", *_means(summary["clean_accuracy"], of | measured.get("clean", {}), missing))
    if weather_changes(summary):
        table.add_row("mean over rounds", _fewest_to_most(measured), *_means(summary["over_rounds"], {}, missing)[1:])
    return table


def _means(means: Mapping[str, float | None], cameras: Mapping[str, Any], missing: Mapping[str, str]) -> list[str]:
    """How many cameras a row has, and each arm's mean, or what is said of an arm that the network does not have."""
    of = cameras.get("of")
    found = (missing.get(arm, _percent(means[arm]) + _fewer(cameras.get(arm, of), of)) for arm in ARMS)
    return [str(of or ""), *found]


def _fewer(measured: int | None, of: int | None) -> str:
    return f" ({measured})" if measured and measured != of else ""


def _fewest_to_most(measured: Mapping[str, Any]) -> str:
    found = measured.get("over_rounds", {"fewest": "", "most": ""})
    return str(found["most"]) if found["fewest"] == found["most"] else f"{found['fewest']}-{found['most']}"


def bytes_table(summary: Mapping[str, Any]) -> RenderableType:
    """Bytes of all frames, up and down, beside full fine-tuning's in fp32; and the shares of full fine-tuning in fp32
    and under the same codec. Below them, what Flower's messages around the frames weigh."""
    whose = "full" if summary["full_fp32_total_bytes"] is None else "full_fp32"  # an older summary may know no better
    table = Table(title="Bytes over the radio (frames, all cameras and rounds)")
    full = "full fine-tuning,\n" + ("same codec" if whose == "full" else "fp32")
    table.add_column()
    table.add_column(summary["label"], justify="right")
    for column in (full, "share,\nfp32", "share,\nsame codec"):
        table.add_column(column, justify="right", no_wrap=True)
    ways = {"up": "up", f"down, {summary.get('downlink', 'unicast')}": "down"}
    found = {said: _three(summary["bytes"], f"{way}link_frame_bytes") for said, way in ways.items()}
    for name, row in (found | {"total": _three(summary, "total_bytes")}).items():
        shares = [_share(row["adapter"], row[arm]) for arm in ("full_fp32", "full")]
        table.add_row(name, _count(row["adapter"]), _count(row[whose]), *shares, style="bold" * (name == "total"))
    table.add_row("Flower messages", *(_count(_messages(summary["bytes"], arm)) for arm in ("", f"{whose}_")))
    for link, seconds in summary["air_time_s"].items():
        table.add_row(f"air time up per camera, {link}", *(_clock(seconds[arm]) for arm in ("adapter", whose)))
    for link, days in summary.get("days", {}).items():
        if math.isclose(86_400 * days["full"], summary["air_time_s"].get(link, {"full": 0})["full"], rel_tol=1e-3):
            continue  # no silence is owed on this link
        table.add_row(f"with the duty cycle, {link}", *(_clock(86_400 * days[arm]) for arm in ("adapter", whose)))
    if (energy := summary.get("energy", {})).get("radio_j") is not None and whose == "full_fp32":
        own, full = (f"{energy[f'{arm}radio_j'] + energy['compute_j']:,.1f}" for arm in ("", "full_fp32_"))
        table.add_row("J per camera", own, full)
    return table


def _messages(sums: Mapping[str, int | None], whose: str) -> int | None:
    """Bytes of the Flower messages that carried the frames, up and down."""
    up, down = (sums.get(f"{whose}{way}link_message_bytes") for way in ("up", "down"))
    return None if up is None or down is None else up + down


def _three(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """This method's, full fine-tuning's under the same codec and in fp32."""
    return {
        arm: values.get(f"{whose}{key}")
        for arm, whose in (("adapter", ""), ("full", "full_"), ("full_fp32", "full_fp32_"))
    }


def _how_learnt(summary: Mapping[str, Any]) -> Iterable[str]:
    """What cameras learnt from, where they lack labels."""
    if found := summary.get("without_labels"):
        yield (
            f"Cameras learnt by {summary['objective']}, {found['labels_used']:,} labels used; online accuracy "
            f"{_percent(found['online_accuracy'])}; {found['cameras_collapsed']} resets after a collapse."
        )


def _share(part: int | None, whole: int | None) -> str:
    return "" if part is None or not whole else f"{part / whole:.2%}"


def _count(value: int | None) -> str:
    """Empty where an older version did not record it."""
    return "" if value is None else f"{value:,}"


def notes(summary: Mapping[str, Any]) -> Iterable[str]:
    """What a reader must know beside the numbers."""
    if _some_missed(summary.get("cameras_measured", {})):
        yield "A number in brackets is how many cameras that mean is over: the others were not measured."
    yield from _sampled(summary)
    if summary["full_fp32_total_bytes"] is None:
        yield "[yellow]An older version made this run: full fine-tuning's bytes in fp32 were not recorded.[/yellow]"
    for remark in filter(None, (went_on(summary), *summary.get("remarks", ()))):
        yield f"[yellow]{escape(remark)}[/yellow]"
    saw = summary["base_saw_fleet_images"]
    for note in summary.get("base", {}).get("notes", ()):
        yield f"[yellow]Base {escape(summary['base']['source'])}: {escape(note)}.[/yellow]"
    if saw == "yes":
        yield "[yellow]The base was trained on images that cameras adapt on, so its accuracies are optimistic.[/yellow]"
    if saw == "unknown":
        yield "[yellow]It is not known whether the base was trained on the cameras' images.[/yellow]"
    if summary["frost_textures"] == "stand-in":
        yield "[yellow]Frost used the stand-in, not CIFAR-10-C's textures: install fed-lorac\\[frost].[/yellow]"
    if (error := summary.get("reconstruction_error")) is not None:
        yield (
            f"Filter atoms reproduce the base's weights with a relative error of {error:.1%} (Frobenius norm); the "
            "base itself is unchanged."
        )
    yield from _how_learnt(summary)
    for group, cameras in _members(summary.get("groups") or {}).items():
        yield f"Group {group}: cameras {', '.join(map(str, cameras))}."
    if "block_size" in summary:
        size = summary["block_size"]
        together = f"{size} cameras side by side" if size > 1 else "one camera at a time"
        where = f"on {summary['device']} in {summary['precision']}"
        trained = summary.get("strategy") != "zero-byte"
        yield f"Trained {where}, {together}." if trained else f"Measured {where}; no camera trained."
    if summary["rounds_skipped"]:
        why = "too few replies, or an update that cannot be sent; see rounds.jsonl"
        yield f"[yellow]{summary['rounds_skipped']} rounds were skipped: {why}.[/yellow]"
    if summary["interrupted"]:
        yield "[yellow]The run was interrupted; the numbers are those of the rounds that were finished.[/yellow]"


def _sampled(summary: Mapping[str, Any]) -> Iterable[str]:
    """What a run was measured on, where that is a sample."""
    if "standard_error" not in summary:
        return
    settings = summary["config"]
    cameras, images = (
        next((value for key, value in settings.items() if key.endswith(f".evaluate_{what}")), 0)
        for what in ("cameras", "images")
    )
    of = summary["cameras_measured"]["of"]
    each = f", {images:,} evaluation images of each" if images else ""
    yield (
        f"Measured on a sample that was drawn once, {cameras or of:,} of {of:,} cameras{each}: the standard error is "
        "that of sampling, not of training."
    )


def _some_missed(measured: Mapping[str, Any]) -> bool:
    """Whether a mean is over fewer cameras than there are."""
    rows = [
        measured,
        *measured.get("per_corruption", {}).values(),
        {**measured.get("clean", {}), "of": measured.get("of")},
    ]
    return any(_fewer(row.get(arm), row.get("of")) for row in rows for arm in ARMS)


def _members(groups: Mapping[str, int]) -> dict[int, list[int]]:
    """Group -> its cameras, from camera -> group."""
    return {
        group: sorted(int(k) for k, its in groups.items() if its == group) for group in sorted(set(groups.values()))
    }


def methods_tables(found: Mapping[str, list[dict[str, Any]]]) -> Iterable[RenderableType]:
    """A table a kind of part; a part that cannot be used has its problem in place of a summary."""
    for kind, entries in found.items():
        table = Table(title=kind.capitalize(), title_justify="left")
        columns = [column for column in entries[0] if column != "problem"]
        for column in columns:
            table.add_column(column, no_wrap=column == "name")
        for entry in entries:
            shown = entry | {"summary": entry["summary"] or entry["problem"]}
            table.add_row(*(escape(_worded(shown[column])) for column in columns), style="red" * bool(entry["problem"]))
        yield table


def _worded(value: object) -> str:
    return {True: "yes", False: "no", None: ""}[value] if isinstance(value, bool | None) else str(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _clock(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3_600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def show_checkup(console: Console, found: "Checkup") -> None:
    """What the doctor found: a column a machine, then what must be mended, then what to know."""
    machines = (found.driver, *found.nodes)
    table = Table(title="Fit to take part?")
    table.add_column("")
    for facts in machines:
        table.add_column(escape(facts.node))
    for name, values in _ROWS.items():
        table.add_row(name, *(escape(values(facts)) for facts in machines))
    console.print(table)
    for text in found.complaints:
        console.print(f"[bold red]unfit[/bold red] {escape(text)}", highlight=False, soft_wrap=True)
    for text in found.remarks:
        console.print(f"[yellow]note[/yellow] {escape(text)}", highlight=False, soft_wrap=True)
    if not found.complaints:
        who = "All machines" if found.nodes else "This machine"
        console.print(f"{who} can run this config.", highlight=False)


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


_ROWS: "dict[str, Callable[[Facts], str]]" = {
    "fed-lorac": lambda f: f.fed_lorac,
    "Python": lambda f: f.python,
    "PyTorch": lambda f: f"{f.torch}, torchvision {f.torchvision}",
    "Flower, Ray": lambda f: f"{f.flwr}, {f.ray}",
    "CPU": lambda f: f"{f.cpus} x {f.cpu}" if f.cpu else "",
    "trains on": lambda f: f"{f.device}, {f.precision}, {_threads(f.threads)} per worker" if f.device else "",
    "free memory": lambda f: f"{f.free_memory_bytes / 2**30:.1f} GiB",
    "data": lambda f: f.data[:12],
    "base": lambda f: f.base[:12],
    "cache": lambda f: f.cache + ("" if f.cache_writable else " (cannot be written)"),
}
