"""Files that are no weights, recognised by their first bytes, each with its remedy. Knows bytes; not tensors."""

import codecs
import re
from collections.abc import Sequence
from pathlib import Path

from fed_lorac.errors import DataError

__all__ = ["HEAD", "head_of", "is_pickle", "is_safetensors", "is_zip", "other_kind"]

HEAD = 512
"""How many bytes are enough to recognise a file's kind."""

_OTHERS = {
    b"\x1f\x8b": "a gzip archive. Unpack it, and name the file in it",
    b"BZh": "a bzip2 archive. Unpack it, and name the file in it",
    b"\xfd7zXZ": "an xz archive. Unpack it, and name the file in it",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive. Unpack it, and name the file in it",
    b"7z\xbc\xaf": "a 7z archive. Unpack it, and name the file in it",
    b"Rar!": "a RAR archive. Unpack it, and name the file in it",
    b"\x89HDF": "HDF5, as Keras writes. Convert it to a PyTorch state_dict",
    b"\x93NUMPY": "a NumPy array. Save a state_dict: tensors by name",
    b"GGUF": "GGUF. Convert it to a PyTorch state_dict",
}
_WEB = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<body")
_LAW = "A file of weights is safetensors, or what torch.save wrote of a state_dict"
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_TAR_MAGIC = slice(257, 262)
_ONNX = re.compile(rb"\x08[\x01-\x1f]\x12[\x01-\x7f][ -~]")  # the format's version, and who wrote it, in words


def head_of(path: Path) -> bytes:
    """The first bytes of a file; DataError where there is none to read."""
    try:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix in _ENDINGS)
            raise DataError(f"{_LAW}; {path} is a folder. Name the file in it{_such_as(inside)}.")
        if path.is_symlink() and not path.exists():
            raise DataError(f"{_LAW}; {path} is a link to {path.readlink()}, which is not there. Fix the link.")
        if not path.exists():
            raise DataError(f"{_LAW}; {path} is not there. Give a path that exists from {Path.cwd()}.")
        if not path.is_file():
            raise DataError(f"{_LAW}; {path} is a device or a pipe. Name a file.")
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as cause:
        raise DataError(
            f"A file of weights must be readable; {path}: {cause.strerror}. Check its permissions."
        ) from None


def _such_as(paths: Sequence[Path]) -> str:
    return f", such as {paths[0]}" if paths else ""


def is_safetensors(head: bytes) -> bool:
    """Eight bytes of length, then a header in JSON."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= 100_000_000


def is_zip(head: bytes) -> bool:
    """An archive, as torch.save writes since PyTorch 1.6."""
    return head.startswith(b"PK\x03\x04")


def is_pickle(head: bytes) -> bool:
    """A pickle, as torch.save wrote before."""
    return head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"


def other_kind(path: Path, head: bytes) -> DataError:
    """The error for a file whose first bytes are of no file of weights."""
    if not head:
        came = "is empty. Was its download or copy broken off? Fetch it again"
    elif head.startswith(b"version https://git-lfs"):
        came = (
            "is a Git LFS pointer, not the weights that it stands for. Run `git lfs pull` in the repository it is from"
        )
    elif head.lstrip().lower().startswith(_WEB):
        came = f"is a web page{_title(head)}: the download saved what a browser shows. Fetch the file itself"
    elif head[_TAR_MAGIC] == b"ustar":
        came = (
            "is a tar archive. Unpack it and name the file in it; where torch.save itself wrote it (before PyTorch "
            "0.1.10), load it in the PyTorch that it is from and save its state_dict again"
        )
    elif other := next((what for magic, what in _OTHERS.items() if head.startswith(magic)), None):
        came = f"is {other}"
    elif _is_text(head):
        came = f"is text, which begins {_shortened(head)!r}. Fetch the file itself"
    elif _ONNX.match(head) or path.suffix.lower() == ".onnx":
        came = (
            "is ONNX, a network's program. Where the network was made, save its weights: "
            'torch.save(model.state_dict(), "weights.pth")'
        )
    else:
        came = f"begins with the bytes {head[:8].hex(' ')}, which are neither's. Is it another program's, or damaged?"
    return DataError(f"{_LAW}; {path} {came}{'' if came.endswith('?') else '.'}")


def _title(head: bytes) -> str:
    found = re.search(rb"<title[^>]*>([^<]+)", head, re.IGNORECASE)
    return f" ({_shortened(found[1])!r})" if found else ""


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # a character may be cut at the end of the head
        return "".join(text.split()).isprintable()
    except UnicodeDecodeError:
        return False


def _shortened(text: bytes) -> str:
    words = " ".join(text.decode(errors="replace").split())
    return words if len(words) <= 60 else words[:57] + "..."
