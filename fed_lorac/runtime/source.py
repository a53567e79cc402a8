"""The source of modules, as a hash: which code made something. Knows files and packages; not what they do."""

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

__all__ = ["libraries_of", "package_identity", "source_of"]


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


@cache
def package_identity(module: str) -> str:
    """Version and source of the package that an imported module belongs to: 16 hex digits over its Python files, before
    them its version where it is installed. Empty where there is no file, as of what a notebook defines."""
    digest, found = hashlib.sha256(), False
    for name, path in _files(module):
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        found = True
    if not found:
        return ""
    return " ".join(filter(None, [_version(module.partition(".")[0]), digest.hexdigest()[:16]]))


@cache
def libraries_of(module: str) -> str:
    """The versions of installed packages that the package of a module imports anywhere: "numpy 2.4.0, scipy 1.17"."""
    names = {name for _, path in _files(module) for name in _imports(path)} - {module.partition(".")[0]}
    known = {name: _version(name) for name in sorted(names) if name not in sys.stdlib_module_names}
    return ", ".join(f"{name} {its}" for name, its in known.items() if its)


def _files(module: str) -> Iterator[tuple[str, Path]]:
    """Every Python file of the module's top package, by its name in it; or the module's own."""
    top = sys.modules.get(module.partition(".")[0])
    roots = [Path(root) for root in getattr(top, "__path__", ())]
    yield from sorted((str(path.relative_to(root)), path) for root in roots for path in root.rglob("*.py"))
    if not roots and (file := getattr(top, "__file__", None)) and Path(file).is_file():
        yield Path(file).name, Path(file)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _version(package: str) -> str:
    """The installed version of what is imported by this name; empty: there is none."""
    for distribution in (package, *_distributions().get(package, ())):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return ""


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())
