"""Laws of the package: what is installed is whole, runs from any folder, and holds nothing that it should not."""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path, PurePosixPath

import pytest
from small_runs import rows, words

from fed_lorac.models.weights import SHIPPED

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOLDERS = ("fed_lorac", "strategies", "sim_configs")  # of the checkout; the wheel has the last two inside the first
WEIGHTS_FILES = tuple(chain(*(its.values() for its in SHIPPED.values())))
WEIGHTS = "fed_lorac/models/weights"


def build(source: Path, target: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    told = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experiment")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(folder)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    return folder


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def in_wheel(file: Path) -> Path:
    return file if file.parts[0] == "fed_lorac" else "fed_lorac" / file


def run_from_elsewhere(installed: Path, elsewhere: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    told = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout.strip()


def test_the_wheel_holds_every_module_config_and_marker(wheel: Path) -> None:
    files = [file.relative_to(ROOT) for folder in FOLDERS for file in (ROOT / folder).rglob("*")]
    expected = {str(in_wheel(file)) for file in files if file.suffix in (".py", ".toml")} - {"fed_lorac/strategies.py"}
    assert {"fed_lorac/sim_configs/quickstart.toml", "fed_lorac/strategies/merged.py"} <= expected
    assert expected | {"fed_lorac/py.typed"} <= names_in(wheel)


def test_the_wheel_holds_the_shipped_weights_and_where_they_come_from(wheel: Path) -> None:
    assert {f"{WEIGHTS}/{name}" for name in (*WEIGHTS_FILES, "README.md")} <= names_in(wheel)


def test_the_wheel_holds_nothing_else_and_is_small(wheel: Path) -> None:
    paths = [PurePosixPath(name) for name in names_in(wheel)]
    assert {path.parts[0] for path in paths} == {"fed_lorac", f"fed_lorac-{PROJECT['version']}.dist-info"}
    of_ours = {path for path in paths if path.parts[0] == "fed_lorac"}
    assert "fed_lorac/strategies.py" not in map(str, of_ours)  # it stands for the folder in a checkout
    assert {path.suffix or path.name for path in of_ours} <= {
        ".py",
        ".toml",
        ".safetensors",
        ".md",
        ".typed",
        ".html",
        ".css",
        ".js",
    }
    assert {str(path.parent) for path in of_ours if path.suffix in (".safetensors", ".md")} <= {WEIGHTS}
    assert {path.parts[1] for path in of_ours if path.suffix in (".html", ".css", ".js")} == {"pages"}
    assert wheel.stat().st_size < 4_000_000


def test_the_wheel_names_its_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        about = {PurePosixPath(n).name: archive.read(n).decode() for n in archive.namelist() if ".dist-info/" in n}
    assert "License-Expression: Apache-2.0" in about["METADATA"]
    assert "Apache License" in about["LICENSE"]
    assert "fed-lorac = fed_lorac.__main__:main" in about["entry_points.txt"]


def test_the_sdist_holds_the_tests_and_no_image_but_its_docs_figures(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [PurePosixPath(*PurePosixPath(name).parts[1:]) for name in archive.getnames()]
    top = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "tests/conftest.py"}
    assert top <= set(map(str, names))
    told = {path for path in names if path.parent != PurePosixPath("docs/images")}
    assert not {path.suffix for path in told} & {".jpg", ".png", ".npy", ".npz", ".xz", ".zip", ".pyc"}


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and newer
        archive.extractall(tmp_path / "source")
    again = build(next((tmp_path / "source").iterdir()), "wheel", tmp_path / "wheel")
    assert names_in(again) == names_in(wheel)


def test_the_installed_command_and_the_module_tell_the_version(installed: Path, tmp_path: Path) -> None:
    script = run_from_elsewhere(installed, tmp_path, sys.executable, str(installed / "bin" / "fed-lorac"), "--version")
    module = run_from_elsewhere(installed, tmp_path, sys.executable, "-m", "fed_lorac", "--version")
    assert script == module == f"fed-lorac {PROJECT['version']}"


def test_shipped_configs_and_weights_are_found_from_any_folder(installed: Path, tmp_path: Path) -> None:
    code = (
        "from fed_lorac import config; from fed_lorac.models.weights import SHIPPED, read_checkpoint, shipped_path;"
        "found = config.shipped_configs(); [config.load_config(name) for name in found];"
        "weights = [shipped_path(model, data) for model, its in SHIPPED.items() for data in its];"
        "assert all(read_checkpoint(path).tensors for path in weights);"
        "print(config.__file__, *found.values(), *weights)"
    )
    paths = [Path(path) for path in run_from_elsewhere(installed, tmp_path, sys.executable, "-c", code).split()]
    assert all(path.is_relative_to(installed) for path in paths)
    configs = {file.name for file in (ROOT / "sim_configs").glob("*.toml")}
    assert {path.name for path in paths} == {"__init__.py", *configs, *WEIGHTS_FILES}


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new environment: the wheel, and of this environment the dependencies alone."""
    home = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    packages = next(home.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # whose own .pth files are not read
    install = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*install, "--no-index", "--no-deps", str(wheel)], check=True, capture_output=True)
    return home / "bin"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_wheel_runs_beside_a_users_own_strategies_and_configs(fresh: Path, tmp_path: Path, workers: int) -> None:
    for name in ("strategies", "sim_configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('{name} of the user was imported')")
    (tmp_path / "strategies" / "merged.py").write_text("")
    (tmp_path / "sim_configs" / "quickstart.toml").write_text("no = [toml")
    around = {**os.environ, "PYTHONPATH": str(tmp_path)}
    settings = [word for setting in words(run__workers=workers, run__rounds=1) for word in ("-c", setting)]
    command = [fresh / "python", "-m", "fed_lorac", "run", "quickstart", *settings, "--out", "out"]
    told = subprocess.run(command, cwd=tmp_path, env=around, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert [row["cameras_counted"] for row in rows(tmp_path / "out" / "rounds.jsonl")] == [3]


@pytest.mark.slow
def test_a_wheel_gives_one_class_by_every_import_and_no_name_but_fed_lorac(fresh: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util as found, fed_lorac.strategies as door;"
        "from fed_lorac.strategies.merged import MergedFedAvg;"
        "assert door.MergedFedAvg is MergedFedAvg;"
        "assert not any(found.find_spec(name) for name in ('strategies', 'sim_configs')); print(door.__file__)"
    )
    around = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [fresh / "python", "-c", code]
    told = subprocess.run(command, cwd=tmp_path, env=around, capture_output=True, text=True, check=True)
    assert Path(told.stdout.strip()).is_relative_to(fresh.parent)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return {normal(re.split(r"[\[<>=~! ]", entry, maxsplit=1)[0]) for entries in lists for entry in entries}


def imports(*folders: str) -> Iterator[str]:
    for file in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.split(".")[0]


@pytest.mark.parametrize(
    ("folders", "extras"),
    [
        (("fed_lorac", "strategies"), ("timm", "report")),
        (("tests", "benchmarks"), ("test", "timm", "frost", "benchmark", "export")),
    ],
)
def test_every_import_is_a_declared_dependency(folders: tuple[str, ...], extras: tuple[str, ...]) -> None:
    own = [path for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*")]
    local = {*FOLDERS, *(path.stem for path in own if path.suffix == ".py" or path.is_dir())}
    in_a_notebook = {"IPython"}  # who is in one has it; elsewhere it is not imported
    outside = set(imports(*folders)) - sys.stdlib_module_names - local - in_a_notebook
    dists = packages_distributions()
    missing = {name for name in outside if not {normal(dist) for dist in dists.get(name, [])} & declared(*extras)}
    assert not missing
