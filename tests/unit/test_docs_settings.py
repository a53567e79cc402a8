"""Laws of what README and docs show: commands parse, configs are valid, settings and names exist, none is missing."""

import ast
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from small_runs import ROOT
from test_docs import DOCS, blocks, prose, read

import fed_lorac
from fed_lorac.cli import app
from fed_lorac.config import load_config, shipped_configs

OLD = ("CHANGELOG.md", "glossary.md")  # these say what names are gone
PAGES = pytest.mark.parametrize("file", [f for f in DOCS if f.name not in OLD], ids=lambda f: str(f.relative_to(ROOT)))
PLACEHOLDERS = {"...", "[CONFIG]", "NAME", "KEY=VALUE]"}
OUTSIDE = "my_package"  # of the reader's own


def commands(file: Path) -> Iterator[list[str]]:
    """The words after `fed-lorac` of every command that a page shows."""
    for block in blocks(file, "sh", "text"):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            for part in re.split(r"&& |\| ", line):
                if part.strip().startswith("fed-lorac "):
                    words = shlex.split(part, comments=True)[1:]
                    if not PLACEHOLDERS & set(words):
                        yield words


def parsed(words: list[str]) -> dict[str, Any]:
    """The parameters of a command line that is not carried out; a UsageError where it is none."""
    group: Any = typer.main.get_command(app)
    top = group.make_context("fed-lorac", list(words))
    name, command, rest = group.resolve_command(top, [*top._protected_args, *top.args])
    found: dict[str, Any] = command.make_context(name, rest, parent=top).params
    return found


@PAGES
def test_every_command_shown_is_one(file: Path) -> None:
    for words in commands(file):
        parsed(words)


@PAGES
def test_every_config_shown_is_valid(file: Path) -> None:
    for words in commands(file):
        shown = parsed(words)
        overrides = list(shown.get("overrides") or [])
        if words[0] in ("run", "doctor", "pretrain", "config") and not any(OUTSIDE in one for one in overrides):
            load_config(shown["config"] if shown["config"] in shipped_configs() else None, overrides)


@PAGES
def test_every_setting_shown_exists(file: Path) -> None:
    project = tomllib.loads(read(ROOT / "pyproject.toml"))
    known = set(flat(project["tool"]["flwr"]["app"]["config"]))
    sections = "|".join({key.partition(".")[0] for key in known})
    for key in re.findall(rf"`((?:{sections})\.[\w.-]+)(?: = .*?)?`", prose(file)):
        if not key.endswith((".safetensors", ".toml", ".py", ".lock")) and ".NAME" not in key:
            assert key in known, key


def flat(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in table.items():
        yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]


@PAGES
def test_every_toml_shown_is_a_config(file: Path, tmp_path: Path) -> None:
    for body in blocks(file, "toml"):
        if "--8<--" in body or OUTSIDE in body:
            continue
        if not tomllib.loads(body).keys() & {"arms", "tune"}:  # else a study's
            (tmp_path / "shown.toml").write_text(body, encoding="utf-8")
            load_config(tmp_path / "shown.toml")


@PAGES
def test_every_name_that_python_shows_exists(file: Path) -> None:
    for body in blocks(file, "python"):
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fed_lorac"):
                for alias in node.names:
                    assert hasattr(importlib.import_module(str(node.module)), alias.name), f"{node.module}.{alias.name}"
        assert set(re.findall(r"\bfl\.(\w+)", body)) <= set(fed_lorac.__all__)


def test_the_api_page_names_every_name_of_the_door() -> None:
    page = read(ROOT / "docs" / "api" / "index.md")
    missing = {name for name in fed_lorac.__all__ if f"`{name}`" not in page}
    assert {name for name in missing if not name.endswith("Error")} <= {"__version__"}  # errors have a page
