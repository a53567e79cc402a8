"""To the device: one file out of a finished run's folder. Knows runs that are done, networks and file formats; not how
a run goes, nor the messages in it.

A network goes out with the adapter merged and, on request, what is a camera's own, batch norm folded into the
convolutions (what can't be is counted in the metadata): the plain network's operations, no more. The adapter goes out
alone, and back onto its base.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from fed_lorac.errors import ConfigError, RunError
from fed_lorac.export.adapter import adapter_file, load_adapter
from fed_lorac.export.deployed import Deployed, load_network
from fed_lorac.export.facts import network_facts
from fed_lorac.export.finished import Finished, check_camera, finished_run, network_of
from fed_lorac.export.formats import FORMATS, OPSET, OPSETS, needed
from fed_lorac.records.run_folder import CONFIG_FILE, FILES
from fed_lorac.runtime.files import home_expanded, reserved, write_bytes

__all__ = ["KINDS", "Deployed", "Exported", "export_run", "load_adapter", "load_network"]

KINDS = (*FORMATS, "adapter")
"""What `--format` may be."""


@dataclass(frozen=True)
class Exported:
    """A file that was written, its size, and the metadata in it."""

    path: Path
    file_bytes: int
    metadata: Mapping[str, str]


def export_run(
    folder: str | PathLike[str],
    kind: str,
    *,
    camera: int | None = None,
    out: str | PathLike[str] | None = None,
    fold: bool = True,
    overwrite: bool = False,
    opset: int | None = None,
) -> Exported:
    """Write the run in `folder`, or a `Run`, as one file of `kind`, atomically; without `out`, in that folder.

    `camera`: with that camera's own batch-norm statistics and its own part of the network, where the strategy has one
    for it; None: the base's statistics, and what all share. `fold`: batch norm into convolutions. `opset`: the operator
    set of ONNX, of `OPSETS`; None: `OPSET`.

    Raises:
        ConfigError: no such kind, camera or opset, or a file name that does not fit.
        RunError: the folder holds no finished run, or one whose network adapts to each batch, which no format of a
            network has operations for; the camera left no statistics, a package is missing, or `out` is there already
            and is not to be overwritten, or cannot be written.
        FactorError: torch.fx cannot follow the network to fold its batch norm.
    """
    if kind not in KINDS:
        raise ConfigError(f"A format is one of {', '.join(KINDS)}; got {kind!r}. Choose one of these.")
    _check_opset(kind, opset)
    suffix = FORMATS[kind].suffix if kind in FORMATS else ".safetensors"
    if kind in FORMATS:
        needed(kind)
    run = finished_run(home_expanded(Path(folder)))
    _check_operations(run, kind)
    check_camera(run, camera)
    path = _place(run, kind, suffix, camera, None if out is None else home_expanded(Path(out)))
    with reserved(path, 0, overwrite=overwrite or out is None):  # a bad place is found before the network is made
        data, facts = adapter_file(run, camera) if kind == "adapter" else _network_file(run, kind, camera, fold, opset)
        write_bytes(path, data)
    return Exported(path, len(data), facts)


def _check_operations(run: Finished, kind: str) -> None:
    if kind in FORMATS and run.config.adapter.first().adapts_to_batch:
        raise RunError(
            "A file of a network holds a plain network's operations; this run's adapts to each batch by gradients "
            f'(adapter.method = "{run.config.adapter.method}"), which {kind} has none for. Export the format adapter, '
            "which holds what was learned, or use the network in Python: fed_lorac.load_run(folder).model()."
        )


def _check_opset(kind: str, opset: int | None) -> None:
    if opset is not None and kind != "onnx":
        raise ConfigError(f"Only ONNX has an opset; got opset {opset} with the format {kind}. Leave it out.")
    if opset is not None and opset not in OPSETS:
        raise ConfigError(
            f"An opset is written that the exporter knows, {OPSETS[0]} to {OPSETS[-1]}; got opset {opset}. "
            f"Choose one of these; without one it is {OPSET}."
        )


def _network_file(
    run: Finished, kind: str, camera: int | None, fold: bool, opset: int | None
) -> tuple[bytes, Mapping[str, str]]:
    deployed = Deployed.of(network_of(run, camera), fold=fold, normalization=run.normalization)
    facts = network_facts(run, camera, deployed, normalizes=FORMATS[kind].normalizes)
    if kind == "onnx":
        facts["opset"] = str(opset or OPSET)
    return FORMATS[kind].encode(deployed, run.config.data.image_size, facts), facts


def _place(run: Finished, kind: str, suffix: str, camera: int | None, out: Path | None) -> Path:
    stem = ("adapter" if kind == "adapter" else "network") + ("" if camera is None else f"-camera-{camera}")
    path = out or run.folder / f"exported-{stem}{suffix}"
    if path.suffix != suffix:
        raise ConfigError(f"A file of the format {kind} ends in {suffix}; out is {path}. Change its ending.")
    if _is_a_runs_own(path):
        raise ConfigError(f"An export leaves a run's own files alone; out is {path}. Choose another name.")
    return path


def _is_a_runs_own(path: Path) -> bool:
    """Whether a file is one of those that a run, this one or another, has in its folder."""
    real = path.resolve()
    return real.name in FILES and (real.parent / CONFIG_FILE).is_file()
