"""Files that appear whole or not at all. Knows paths and bytes; not what they mean.

A file is written beside its place, forced to the disk, and renamed: whoever opens the path finds the old file or the
new one, after Ctrl-C, SIGKILL or a power cut alike.
"""

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

__all__ = ["clear_litter", "tensor_bytes", "write_bytes", "write_tensors", "write_text"]


def _sync_folder(folder: Path) -> None:
    # The rename itself lives in the folder. Some file systems cannot sync one, and lose nothing by that.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write `data` to `path` atomically, replacing what is there; OSError as the file system gives it."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:  # Ctrl-C too leaves no litter
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return path


def clear_litter(folder: Path) -> None:
    """Remove what a killed process left half-written beside the files of a folder."""
    for litter in folder.glob(".*.tmp"):
        litter.unlink()


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text to `path` atomically, newlines as they are."""
    return write_bytes(path, text.encode())


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
