"""The source of our own modules, as a hash: which code made something. Knows files; not what they do."""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

__all__ = ["source_of"]


@cache
def source_of(*modules: str) -> str:
    """16 hex digits over the source files of these modules, such as "fed_lorac.data.decode".

    What is kept on disk has it in its name, so that one version's pixels are never taken for another's. Equal code is
    equal on every machine. The files are read once a process.
    """
    digest = hashlib.sha256()
    for module in modules:
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"{module} has no source file")
        digest.update(module.encode() + b"\0" + hashlib.sha256(Path(spec.origin).read_bytes()).digest())
    return digest.hexdigest()[:16]
