"""What methods train and send, as a table a network that fits 80 columns. Knows sizes and rich; not how they were
weighed."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table

from fed_lorac.adapters.targets import ALL_LAYERS
from fed_lorac.registry import ADAPTERS
from fed_lorac.reporting.sizes import Sizes

__all__ = ["sizes_table"]

_NO_MODE = ("lorae", "conv-lora")  # ranked, by filters: no rank mode


def sizes_table(rows: Sequence[Sizes]) -> RenderableType:
    """Trainable parameters and bytes of one uplink of a method on a network, for several ranks; full fine-tuning last.

    `rows` are of one model, method and dtype.
    """
    first, columns = rows[0], _columns(rows[0])
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(cell(row) for cell in columns.values()))
    if first.method != "full":
        table.add_section()
        table.add_row(*(cell(_as_full(first)) for cell in columns.values()))
    where = "" if first.layers == ALL_LAYERS else f" on {first.layers}"
    title = f"{first.model}, {first.method}{where}, {first.dtype}: what a camera trains and sends up in a round"
    return Group(title, table, *filter(None, map(_dense, rows)))


def _dense(row: Sizes) -> str:
    """What is said where a method has no branch on some convolutions; "" for nothing."""
    if not row.dense_layers:
        return ""
    return f"{_rank(row)}: {row.dense_layers} grouped convolutions are trained whole: a branch would be no smaller"


def _columns(first: Sizes) -> dict[str, Callable[[Sizes], str]]:
    """Header -> a row's cell. Shares are of full fine-tuning in fp32, and under the same codec."""
    return {
        "rank" if _has_rank(first.method) else "": _rank,
        "trained": lambda row: f"{row.trainable_parameters:,}",
        "of full": lambda row: _share(row.trainable_parameters, row.full_parameters),
        "frame\nbytes": lambda row: f"{row.frame_bytes:,}",
        "message\nbytes": lambda row: f"{row.message_bytes:,}",
        "of full\nin fp32": lambda row: _share(row.frame_bytes, row.full_fp32_frame_bytes),
        "same\ncodec": lambda row: _share(row.frame_bytes, row.full_frame_bytes),
    }


def _as_full(row: Sizes) -> Sizes:
    """Full fine-tuning of the same network under the same codec, as a row of its own."""
    return replace(
        row,
        method="full",
        trainable_parameters=row.full_parameters,
        frame_bytes=row.full_frame_bytes,
        message_bytes=row.full_message_bytes,
    )


def _rank(row: Sizes) -> str:
    if not _has_rank(row.method):
        return row.method
    return f"r={row.rank}" if row.method in _NO_MODE else f"r={row.rank} ({row.rank_mode})"


def _share(part: int, whole: int) -> str:
    """Three digits, as shares run from a thousandth of a per cent to all."""
    return f"{100 * part / whole:#.3g}".removesuffix(".") + "%"


def _has_rank(method: str) -> bool:
    return "rank" in ADAPTERS.rules(method)
