"""What several commands take, and where they speak. Knows typer and rich; not what any command does."""

import math
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["AsJson", "Format", "Overrides", "Overwrite", "Source", "err", "finite", "out"]


def finite(value: float | None) -> float | None:
    """The callback of every option that is a number: `nan` is within any bounds, for it is below none of them."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"a number here is finite; got {value}.")
    return value


out, err = Console(), Console(stderr=True)

Source = Annotated[
    str | None, typer.Argument(help="A name in sim_configs, or a path to a TOML file.", show_default="quickstart")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-c",
        metavar="KEY=VALUE",
        help="Override a setting, as in -c run.rounds=20. May be repeated; for the same key the last one counts.",
        show_default="none",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Overwrite the file if it exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Format = Annotated[
    str, typer.Option("--format", help="markdown, csv (bare numbers, intervals in columns of their own) or latex.")
]
