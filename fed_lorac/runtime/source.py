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
    them its version where it is installed. Where it is not, what it imports that is not installed either counts too.
    Empty where there is no file, as of what a notebook defines."""
    top = module.partition(".")[0]
    digest, installed = hashlib.sha256(), _version(top)
    parts = (top,) if installed else (top, *_not_installed(top))
    files = [file for part in parts for file in _files(part)]
    for name, path in files:
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return " ".join(filter(None, [installed, digest.hexdigest()[:16]])) if files else ""


@cache
def libraries_of(module: str) -> str:
    """The versions of installed packages that the package of a module imports anywhere: "numpy 2.4.0, scipy 1.17"."""
    top = module.partition(".")[0]
    names = {name for part in (top, *_not_installed(top)) for _, path in _files(part) for name in _imports(path)} - {
        top
    }
    known = {name: _version(name) for name in sorted(names)}
    return ", ".join(f"{name} {its}" for name, its in known.items() if its)


def _files(module: str) -> Iterator[tuple[str, Path]]:
    """Every Python file of the module's top package, by its name in it; or the module's own."""
    top = sys.modules.get(module.partition(".")[0])
    roots = [Path(root) for root in getattr(top, "__path__", ())]
    yield from sorted((str(path.relative_to(root)), path) for root in roots for path in root.rglob("*.py"))
    if not roots and (file := getattr(top, "__file__", None)) and Path(file).is_file():
        yield Path(file).name, Path(file)


def _not_installed(top: str) -> list[str]:
    """What a package imports, and that in turn, as far as it is imported by now and no installed package: a user's own
    modules beside it."""
    found, open_ends = [top], [top]
    while open_ends:
        names = {name for _, path in _files(open_ends.pop()) for name in _imports(path)}
        new = sorted(name for name in names - set(found) if name in sys.modules and not _version(name))
        found += new
        open_ends += new
    return found[1:]


def _imports(path: Path) -> Iterator[str]:
    """The top packages that a file imports, but for Python's own and ours; none, of what is no Python of today."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        tops = (name.partition(".")[0] for name in names)
        yield from (
            top for top in tops if top not in sys.stdlib_module_names and top not in ("fed_lorac", "strategies")
        )


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
