"""The example package, in a fresh environment: its names run, resume, and reach Ray workers."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from small_runs import ROOT, rows

PACKAGE = ROOT / "examples" / "plugin_package"
QUICK = ["-c", "model.pretrain.epochs=2", "-c", "data.options.count=240", "-c", "local.epochs=1"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment: this checkout and the package are installed, the rest is this environment's."""
    home = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    packages = next(home.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    install = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet"]
    for project in (ROOT, PACKAGE):
        command = [*install, "--no-index", "--no-deps", "--no-build-isolation", str(project)]
        told = subprocess.run(command, capture_output=True, text=True, check=False, env=clean())
        assert told.returncode == 0, told.stderr
    return home / "bin" / "python"


def clean() -> dict[str, str]:
    """The environment without a source tree: what is installed is what runs."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(python: Path, folder: Path, *words: str) -> dict[str, Any]:
    """A run of the package's config; its summary."""
    command = [python, "-m", "fed_lorac", "run", *words]
    told = subprocess.run(command, cwd=folder, env=clean(), capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    found: dict[str, Any] = json.loads((folder / "run" / "summary.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
def test_its_names_run_and_resume_to_the_same_bytes(fresh: Path, tmp_path: Path) -> None:
    config = str(PACKAGE / "rooftop.toml")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        folder.mkdir()
    found = run(fresh, whole, config, *QUICK, "-c", "run.rounds=2", "-c", "local.schedule=constant", "--out", "run")
    assert (found["method"], found["strategy"]) == ("patterns", "geometric-median")
    run(fresh, halves, config, *QUICK, "-c", "run.rounds=1", "-c", "local.schedule=constant", "--out", "run")
    run(fresh, halves, "--resume", "run", "-c", "run.rounds=2")
    for file in ("adapter.safetensors", "model.safetensors"):
        assert (whole / "run" / file).read_bytes() == (halves / "run" / file).read_bytes()
    assert [row["cameras_counted"] for row in rows(whole / "run" / "rounds.jsonl")] == [6, 6]


@pytest.mark.slow
def test_its_names_run_on_ray_workers_to_the_same_bytes(fresh: Path, tmp_path: Path) -> None:
    files = []
    for workers in ("1", "2"):
        folder = tmp_path / workers
        folder.mkdir()
        config = [str(PACKAGE / "rooftop.toml"), *QUICK, "-c", "run.rounds=1", "-c", "block_size=3"]
        run(fresh, folder, *config, "-c", f"run.workers={workers}", "--out", "run")
        files.append((folder / "run" / "adapter.safetensors").read_bytes())
    assert files[0] == files[1]


@pytest.mark.slow
def test_its_parts_keep_the_laws_and_are_listed(fresh: Path, tmp_path: Path) -> None:
    tests = [fresh, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", str(PACKAGE / "tests")]
    told = subprocess.run(tests, cwd=tmp_path, env=clean(), capture_output=True, text=True, check=False)
    assert told.returncode == 0 and "5 passed" in told.stdout, told.stdout + told.stderr
    listed = subprocess.run(
        [fresh, "-m", "fed_lorac", "methods", "--json"],
        cwd=tmp_path, env=clean(), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert all(name in listed for name in ("patterns", "geometric-median"))


def test_every_part_is_short() -> None:
    lengths = {file.name: len(file.read_text().splitlines()) for file in (PACKAGE / "rooftop").glob("*.py")}
    assert len(lengths) == 6 and max(lengths.values()) < 60, lengths
