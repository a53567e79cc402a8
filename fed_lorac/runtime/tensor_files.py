"""Tensors as safetensors files: the same bytes for equal tensors. Knows tensors and files; not what they mean."""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from fed_lorac.runtime.files import write_bytes

__all__ = ["tensor_bytes", "write_tensors"]


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file as bytes: the same bytes for equal tensors and metadata.

    safetensors 0.8 writes metadata in the order of a hash map, which differs from process to process; the header is
    therefore written again with sorted keys (it is JSON, and the tensors' offsets in it count from its end).
    """
    own = {
        name: tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        for name, tensor in sorted(tensors.items())
    }
    raw = safetensors.torch.save(own, dict(metadata) if metadata else None)
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the format wants the tensors aligned
    return len(header).to_bytes(8, "little") + header + raw[start:]


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Write a safetensors file atomically; any device, strides or shared memory."""
    return write_bytes(path, tensor_bytes(tensors, metadata))
