"""The command line: words in, exit codes out. Knows typer and rich; what is done is in the rooms it calls.

Exit codes: 0 done, 1 the run or the data failed, 2 the command or the config is wrong, 130 interrupted.
"""

import json
import logging
import os
import sys
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fed_lorac import __version__
from fed_lorac.commands.cache import cache
from fed_lorac.commands.compare import compare
from fed_lorac.commands.config import config
from fed_lorac.commands.ending import Commands, ended
from fed_lorac.commands.fleet import fleet
from fed_lorac.commands.options import AsJson, Overrides, Overwrite, Source, err, finite, out
from fed_lorac.commands.plan import plan
from fed_lorac.commands.report import report
from fed_lorac.commands.run import run
from fed_lorac.commands.study import study
from fed_lorac.errors import ConfigError

__all__ = ["app", "main"]


app = typer.Typer(
    cls=Commands,
    help="Simulate a fleet of cameras that adapt a shared CNN over a thin radio, and measure every byte.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Every command imports what it needs, so that help comes at once."""
    if version:
        out.print(f"fed-lorac {__version__}", highlight=False)
        raise typer.Exit


app.command()(run)
app.command()(study)
app.command()(report)
app.command()(config)
app.command()(fleet)
app.command()(plan)


@app.command()
def doctor(config: Source = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check that this machine, and every node of a cluster, can run a config: versions, data, device, memory.

    Exit code 1 if one of them cannot.
    """
    from fed_lorac.config import load_config  # noqa: PLC0415
    from fed_lorac.data.progress import heard_by  # noqa: PLC0415
    from fed_lorac.grid.examination import checkup  # noqa: PLC0415
    from fed_lorac.reporting.tables import show_checkup  # noqa: PLC0415

    with err.status("examining") as status, heard_by(lambda what, done, total: status.update(f"examining: {what}")):
        found = checkup(load_config(config, overrides or []))
    if as_json:
        sys.stdout.write(json.dumps(asdict(found), indent=2) + "\n")
    else:
        show_checkup(out, found)
    if found.complaints:
        raise typer.Exit(1)


@app.command()
def show(folder: Annotated[Path, typer.Argument(help="A run's folder.")]) -> None:
    """Print a finished run's tables again."""
    from fed_lorac.api.result import Run  # noqa: PLC0415
    from fed_lorac.reporting.tables import show_run  # noqa: PLC0415
    from fed_lorac.runtime.files import home_expanded  # noqa: PLC0415

    show_run(out, Run(home_expanded(folder)).summary)


app.command()(compare)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.")],
    kind: Annotated[
        str, typer.Option("--format", help="safetensors, onnx, torchscript, or adapter (the adapter alone).")
    ],
    camera: Annotated[
        int | None,
        typer.Option(help="Include this camera's own statistics and weights.", show_default="only what all share"),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--out", help="The file to write.", show_default="RUN/exported-NAME.ENDING")
    ] = None,
    fold: Annotated[bool, typer.Option("--fold/--no-fold", help="Fold batch norm into convolutions.")] = True,
    overwrite: Overwrite = False,
    opset: Annotated[
        int | None, typer.Option(help="The ONNX operator set to write, 18 to 25.", show_default="20")
    ] = None,
) -> None:
    """Write a finished run's network for a device: adapter merged, batch norm folded; pixels go in, logits out."""
    from fed_lorac.export import export_run  # noqa: PLC0415

    written = export_run(folder, kind, camera=camera, out=file, fold=fold, opset=opset, overwrite=overwrite)
    out.print(f"{written.path}: {written.file_bytes:,} bytes", highlight=False, markup=False, soft_wrap=True)
    for key, value in written.metadata.items():
        out.print(f"  {key}: {value}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def methods(
    part: Annotated[
        str | None,
        typer.Option(
            "--networks",
            metavar="TEXT",
            help="List only the networks whose name contains TEXT, such as timm/.",
            show_default="all parts",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List every name that a config may use: what it is, its source, and the package that it comes from.

    Adapters, strategies (and whether their mean is exact), codecs, links, models, data sets and corruptions. A family
    of torchvision's networks is one row, and so is timm: --networks lists them one by one.
    """
    from fed_lorac.api.catalogue import methods as all_methods  # noqa: PLC0415
    from fed_lorac.api.catalogue import networks  # noqa: PLC0415
    from fed_lorac.reporting.tables import methods_tables  # noqa: PLC0415

    if part is not None:
        names = networks(part)
        sys.stdout.write(json.dumps(names, indent=2) + "\n" if as_json else "".join(f"{name}\n" for name in names))
        return
    found = all_methods()
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        out.print(*methods_tables(found))


@app.command()
def pretrain(
    config: Source = None,
    overrides: Overrides = None,
    lr: Annotated[float, typer.Option(help="The highest learning rate.", min=0.0, callback=finite)] = 0.2,
    weight_decay: Annotated[float, typer.Option(help="Weight decay, on matrices.", min=0.0, callback=finite)] = 5e-4,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the images.", min=1, show_default="model.pretrain.epochs, 70")
    ] = None,
    held_out: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Keep this share of the cloud's images out of training; report accuracy on it, not on test images.",
            min=0.0,
            max=0.99,
            callback=finite,
        ),
    ] = 0.0,
    checkpoint: Annotated[Path, typer.Option("--out", help="Where to write the checkpoint.")] = Path(
        "base.safetensors"
    ),
    overwrite: Overwrite = False,
) -> None:
    """Train a base network on the cloud's clean images and write it as safetensors, with its provenance.

    Network, data and augmentation are settings: model.name, data.name, local.augment and so on.

    If model.weights is a checkpoint or "imagenet", training goes on from there. To choose between recipes, hold images
    out: a recipe chosen on the test images looks better on them than it is.
    """
    import torch  # noqa: PLC0415

    from fed_lorac.config import load_to_pretrain  # noqa: PLC0415
    from fed_lorac.experiment.base_model import train_base  # noqa: PLC0415
    from fed_lorac.experiment.build import open_data  # noqa: PLC0415
    from fed_lorac.runtime.files import home_expanded  # noqa: PLC0415

    settings = load_to_pretrain(config, overrides or [])
    checkpoint = home_expanded(checkpoint)
    if checkpoint.suffix != ".safetensors":
        raise ConfigError(f"A checkpoint is written as .safetensors; --out is {checkpoint}. Change its ending.")
    torch.set_num_threads(settings.run.threads)
    data = open_data(settings)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:
        task = progress.add_task(f"training {settings.model.name} on {data.name}", total=None)
        said = train_base(
            settings,
            data,
            checkpoint,
            lr=lr,
            weight_decay=weight_decay,
            epochs=epochs,
            held_out=held_out,
            overwrite=overwrite,
            on_step=lambda step, steps, loss: progress.update(
                task, total=steps, completed=step + 1, description=f"training {settings.model.name}, loss {loss:.3f}"
            ),
        )
    what = "held_out_accuracy" if held_out else "test_accuracy"
    scored = f"accuracy on the {held_out:.0%} held out" if held_out else "clean test accuracy"
    out.print(f"{checkpoint}: {scored} {100 * float(said[what]):.2f} %", highlight=False, markup=False)


@app.command()
def sizes(
    model: Annotated[
        str | None, typer.Option(help="A network, such as resnet20.", show_default="LoRA-C's own and resnet20")
    ] = None,
    method: Annotated[str, typer.Option(help="An adapter method.")] = "lora-c",
    rank: Annotated[
        list[int] | None, typer.Option(help="The rank setting r; may be repeated.", show_default="1, 4, 16")
    ] = None,
    rank_mode: Annotated[str, typer.Option(help="r*k, r, or auto (as in the paper).")] = "auto",
    layers: Annotated[
        str, typer.Option(help="Which convolutions to adapt, as in adapter.layers: patterns, or all.")
    ] = "all",
    classes: Annotated[int, typer.Option(help="Number of classes.", min=2)] = 10,
    dtype: Annotated[
        str, typer.Option(help="A codec: fp32, fp16, bf16, int8, int4, int2, ternary, bernoulli, drive or topk.")
    ] = "fp32",
    as_json: AsJson = False,
) -> None:
    """Print the trainable parameters of a method at each rank, and the bytes of its reply, which is really built.

    A table per network. Shares are of full fine-tuning in fp32; with another --dtype, also of full fine-tuning under
    that codec.
    """
    with err.status("importing PyTorch and Flower"):
        from fed_lorac.reporting.size_tables import sizes_table  # noqa: PLC0415
        from fed_lorac.reporting.sizes import asked  # noqa: PLC0415
        from fed_lorac.reporting.sizes import sizes as weighed  # noqa: PLC0415

    found = []
    for network, its in asked(model, method, rank, rank_mode).items():
        with err.status(f"building and weighing what is sent of {network}"):
            rows = [weighed(*one, classes=classes, dtype=dtype, layers=layers) for one in its]
        if not as_json:
            out.print(sizes_table(rows))
        found += [row.as_dict() for row in rows]
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")


app.command()(cache)


def main() -> None:
    """The entry point: errors of ours are one message, not a traceback."""
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=err, show_path=False)]
    )
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # a simulation has nothing to report home
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may be no text
    ended(app, err)
