"""File formats of a network: safetensors, ONNX, TorchScript, each as bytes. Knows networks; not runs or paths."""

import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from fed_lorac.errors import RunError
from fed_lorac.export.deployed import FOLDED, Deployed
from fed_lorac.runtime.tensor_files import tensor_bytes

__all__ = ["FORMATS", "METADATA_FILE", "OPSET", "OPSETS", "Format", "needed"]

OPSETS = range(18, 26)
"""ONNX operator sets that the exporter writes for our networks: asked for an older one it would write 18, unasked."""
OPSET = 20
"""The exporter's own choice."""

METADATA_FILE = "metadata.json"
"""The file inside a TorchScript archive with the metadata, as JSON."""


@dataclass(frozen=True)
class Format:
    """One file format: (network, pixels a side, metadata) to the whole file, the packages that takes, and if the
    file's own operations normalise pixels."""

    suffix: str
    encode: Callable[[Deployed, int, Mapping[str, str]], bytes]
    packages: tuple[str, ...] = ()
    normalizes: bool = True


def _safetensors(deployed: Deployed, side: int, metadata: Mapping[str, str]) -> bytes:
    """The network's own tensors under its own names; normalisation is in the metadata, `load_network` applies it."""
    return tensor_bytes(deployed.network.state_dict(), metadata)


def _onnx(deployed: Deployed, side: int, metadata: Mapping[str, str]) -> bytes:
    """In the operator set that the metadata says."""
    opset = int(metadata.get("opset", OPSET))
    program = torch.onnx.export(
        deployed,
        (_example(side),),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
        opset_version=opset,
    )
    assert program is not None
    model: Any = program.model_proto
    if (written := {entry.version for entry in model.opset_import if not entry.domain}) != {opset}:
        raise RunError(f"The file must have the opset that was asked for; {opset} became {written}. Ask for {OPSET}.")
    _forget_where_it_was_made(model)
    for key, value in sorted(metadata.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _forget_where_it_was_made(model: Any) -> None:
    """The exporter notes a stack trace, with this machine's paths, at every node."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _torchscript(deployed: Deployed, side: int, metadata: Mapping[str, str]) -> bytes:
    """Traced and frozen: what LibTorch reads. PyTorch calls TorchScript deprecated and still reads and writes it."""
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # Group norm asks in Python whether there is more than one number to a group, which a shape settles for good.
        warnings.filterwarnings("ignore", message="Converting a tensor to a Python boolean")
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", message=".*is deprecated", category=category)
        script = torch.jit.trace(deployed, (_example(side),))
        # What it calls numerics is folding batch norm, which has been done, or was not wanted.
        script = torch.jit.freeze(script, optimize_numerics=deployed.batch_norm.startswith(FOLDED))
        torch.jit.save(script, file, _extra_files={METADATA_FILE: json.dumps(dict(metadata))})
    return file.getvalue()


def _example(side: int) -> torch.Tensor:
    return torch.zeros(2, 3, side, side)  # of one image, a batch's size would be taken for a constant


FORMATS: dict[str, Format] = {
    "safetensors": Format(".safetensors", _safetensors, normalizes=False),
    "onnx": Format(".onnx", _onnx, ("onnx", "onnxscript")),
    "torchscript": Format(".pt", _torchscript),
}


def needed(name: str) -> None:
    """RunError where a package that the format takes is not installed."""
    if missing := [package for package in FORMATS[name].packages if find_spec(package) is None]:
        raise RunError(
            f"The format {name} is written with {' and '.join(FORMATS[name].packages)}; {missing[0]} is not "
            'installed. Run pip install "fed-lorac[export]".'
        )
