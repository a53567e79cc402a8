"""`fed-lorac cache`: shows, checks and clears the cache. Knows the terminal; not what is cached."""

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fed_lorac.commands.options import finite
from fed_lorac.errors import ConfigError

if TYPE_CHECKING:
    from fed_lorac.data.inventory import Item

__all__ = ["cache"]


def cache(
    verify: Annotated[bool, typer.Option("--verify", help="Read every entry, and list the damaged ones.")] = False,
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove the entries shown; with --verify, only the damaged ones.")
    ] = False,
    older_than: Annotated[
        float,
        typer.Option(
            metavar="DAYS", help="Only entries that have not been used for this many days.", min=0, callback=finite
        ),
    ] = 0.0,
    yes: Annotated[bool, typer.Option("--yes", help="Clear without asking.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what is in the cache (FED_LORAC_CACHE: decoded images, base networks and more), check it, or clear it.

    Exit code 1 if an entry is damaged, or could not be removed.
    """
    from fed_lorac.data.inventory import damage, inventory, remove  # noqa: PLC0415
    from fed_lorac.data.store import cache_folder  # noqa: PLC0415

    out, err, folder = Console(), Console(stderr=True), cache_folder()
    found = [item for item in inventory(folder) if time.time() - item.used >= 86_400 * older_than]
    with err.status("reading"):
        damaged = {item.path: what for item in found if verify and (what := damage(item))}
    if not as_json:
        _show(out, folder, found, damaged)
    if verify and not damaged and not as_json:
        out.print("Nothing is damaged.")
    chosen = [item for item in found if clear and (not verify or item.path in damaged)]
    if chosen and not _agreed(yes, f"Remove {len(chosen)} of these?"):
        chosen = []
    left = remove(chosen)
    removed = [item.path for item in chosen if item.path not in left]
    if as_json:
        sys.stdout.write(json.dumps(_in_plain(folder, found, damaged, removed), indent=2) + "\n")
    elif clear:
        out.print(f"Removed {len(removed)}.", highlight=False)
    for path, reason in left.items():
        err.print(f"{_text(path)} was left: {reason}.", highlight=False, soft_wrap=True)
    if left or (damaged and not clear):
        raise typer.Exit(1)


def _agreed(yes: bool, question: str) -> bool:
    if not yes and not sys.stdin.isatty():
        raise ConfigError("Clearing asks before it removes anything, and there is no terminal to ask on. Add --yes.")
    return yes or typer.confirm(question, err=True)


def _show(out: Console, folder: Path, items: "Sequence[Item]", damaged: Mapping[Path, str]) -> None:
    """One row for all of a kind, then what is damaged."""
    table = Table(title="Cache")
    for column in ("what", "entries", "on disk", "last used"):
        table.add_column(column, justify="right" if column in ("entries", "on disk") else "left")
    for what, group in groupby(items, key=lambda item: item.what):
        kind = list(group)
        used = datetime.fromtimestamp(max(item.used for item in kind)).astimezone().date()
        table.add_row(_text(what), str(len(kind)), _size(kind), used.isoformat())
    table.add_section()
    table.add_row("total", str(len(items)), _size(items), style="bold")
    out.print(table)
    out.print(f"{_text(folder)}, {_free_bytes(folder) / 1e9:.2f} GB free", highlight=False, soft_wrap=True)
    for path, what in damaged.items():
        out.print(f"[bold red]damaged[/bold red] {_text(path)}: {_text(what)}", highlight=False, soft_wrap=True)
    if damaged:
        out.print("`fed-lorac cache --verify --clear` removes what is damaged; it is built again when it is needed.")


def _in_plain(
    folder: Path, items: "Sequence[Item]", damaged: Mapping[Path, str], removed: Sequence[Path]
) -> dict[str, Any]:
    """The same entry by entry, in plain values."""
    entries = [
        {
            "what": item.what,
            "path": str(item.path),
            "bytes": item.size_bytes,
            "built": datetime.fromtimestamp(item.built, UTC).isoformat(timespec="seconds"),
            "used": datetime.fromtimestamp(item.used, UTC).isoformat(timespec="seconds"),
            "damage": damaged.get(item.path, ""),
            "removed": item.path in removed,
        }
        for item in items
    ]
    total = sum(item.size_bytes for item in items)
    return {"folder": str(folder), "free_bytes": _free_bytes(folder), "total_bytes": total, "entries": entries}


def _free_bytes(folder: Path) -> int:
    """Free on the disk where the folder is, or would be."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def _size(items: "Sequence[Item]") -> str:
    size_bytes = sum(item.size_bytes for item in items)
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.2f} MB"


def _text(value: object) -> str:
    """Anything's text for the terminal: no markup, and what is not UTF-8 escaped."""
    return escape(str(value).encode(errors="backslashreplace").decode())
