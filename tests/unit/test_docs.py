"""Laws of README and docs: links lead somewhere, examples compile, and README stays short."""

import ast
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import ROOT

README = ROOT / "README.md"
DOCS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = pytest.mark.parametrize("file", DOCS, ids=lambda file: str(file.relative_to(ROOT)))
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

PARTS = ("adapters", "strategies", "objectives", "codecs", "models", "datasets", "corruptions", "links", "logs")
GROUPS = {f"fed_lorac.{part}" for part in PARTS}  # of entry points


def read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def blocks(file: Path, *languages: str) -> Iterator[str]:
    return (body for language, body in FENCED.findall(read(file)) if language in languages)


def prose(file: Path) -> str:
    return FENCED.sub("", read(file))


def anchors(file: Path) -> set[str]:
    """What a link may point to in a page: its headings, as MkDocs and GitHub write them."""
    titles = re.findall(r"^#+ (.+)$", prose(file), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def test_readme_has_at_most_150_lines() -> None:
    assert len(read(README).splitlines()) <= 150


@PAGES
def test_every_relative_link_leads_somewhere(file: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(file)):
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        if "://" not in link:
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@PAGES
def test_every_python_example_compiles(file: Path) -> None:
    for body in blocks(file, "python"):
        ast.parse(body)


@pytest.mark.parametrize("file", [file for file in DOCS if file.name != "CHANGELOG.md"], ids=lambda file: file.name)
def test_every_path_and_module_shown_exists(file: Path) -> None:
    for path in re.findall(r"`((?:\w+/)+[\w.-]*)`", prose(file)):
        if path.split("/")[0] in ("fed_lorac", "strategies", "sim_configs", "tests", "benchmarks", "docs", "examples"):
            if path.startswith(("fed_lorac/strategies", "fed_lorac/sim_configs")):  # there in a wheel alone
                continue
            assert (ROOT / path).exists(), path
    for name in re.findall(r"(?:`|^::: )(fed_lorac(?:\.\w+)+)", prose(file), re.MULTILINE):
        assert name in GROUPS or pkgutil.resolve_name(name) is not None, name


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", read(ROOT / "mkdocs.yml")))
    assert listed == {str(file.relative_to(ROOT / "docs")) for file in (ROOT / "docs").rglob("*.md")}


def test_contributing_names_every_room() -> None:
    contracts = tomllib.loads(read(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "layers")
    rooms = {room.strip() for layer in layers for room in layer.split("|")} - {"__main__"}
    table = "\n".join(line for line in read(ROOT / "CONTRIBUTING.md").splitlines() if line.startswith("| `"))
    assert rooms - set(re.findall(r"`(\w+)`", table)) <= {"strategies"}  # it has a paragraph of its own
