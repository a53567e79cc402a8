"""The rooms keep apart: contracts of pyproject.toml hold, and each would be missed; no room says what none may say."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"

# Contract, a room that it binds, and an import that the room must never have.
TRESPASSES = [
    ("layers", "fed_lorac/client/local_update.py", "import fed_lorac.simulation.server_app"),
    ("layers", "fed_lorac/wire/layout.py", "from fed_lorac.adapters.deltas import State"),
    ("layers", "fed_lorac/seeds.py", "from fed_lorac.errors import ConfigError"),
    ("layers", "fed_lorac/a_new_room.py", ""),
    ("flower", "fed_lorac/client/local_update.py", "from flwr.app import Message"),
    ("ray", "fed_lorac/client/local_update.py", "import ray"),
    ("strategies-importers", "fed_lorac/client/local_update.py", "from strategies.merged import MergedFedAvg"),
    ("strategies-importers", "fed_lorac/client/local_update.py", "from fed_lorac.strategies import MergedFedAvg"),
    ("strategies", "strategies/merged.py", "from fed_lorac.fleet.fleet import Camera"),
    ("strategies", "fed_lorac/aggregation/delta_sum.py", "from fed_lorac.fleet.fleet import Camera"),
    ("factors", "fed_lorac/adapters/algebra/factors.py", "from fed_lorac.config import Config"),
    ("data", "fed_lorac/data/corruptions/blur.py", "from fed_lorac.config import Config"),
    ("fleet", "fed_lorac/fleet/fleet.py", "import torch"),
    ("wire", "fed_lorac/wire/layout.py", "from flwr.app import Array"),
    ("plain", "fed_lorac/records/ledger.py", "import numpy"),
    ("flwr-datasets", "fed_lorac/data/splits.py", "from flwr_datasets.partitioner import IidPartitioner"),
    ("terminal", "fed_lorac/simulation/round.py", "import rich"),
]


def lint(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LINT, "--no-cache", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_every_contract_is_kept() -> None:
    told = lint(ROOT)
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    shutil.copy(ROOT / "pyproject.toml", root)
    for package in ("fed_lorac", "strategies"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    return root


@pytest.mark.parametrize(("contract", "room", "trespass"), TRESPASSES)
def test_a_trespass_breaks_its_contract(copy: Path, contract: str, room: str, trespass: str) -> None:
    file = copy / room
    before = file.read_text() if file.exists() else None
    file.write_text(f"{before or ''}\n{trespass}\n")
    try:
        told = lint(copy, "--contract", contract)
    finally:
        file.unlink() if before is None else file.write_text(before)
    assert told.returncode == 1, told.stdout + told.stderr
    assert room.removesuffix(".py").replace("/", ".") in told.stdout


def test_every_contract_has_a_trespass() -> None:
    listed = (ROOT / "pyproject.toml").read_text().partition("[tool.importlinter]")[2]
    names = {line.split('"')[1] for line in listed.splitlines() if line.startswith("id = ")}
    assert names == {contract for contract, _, _ in TRESPASSES}


# Calls that draw from a global generator unless they are given one, in numpy's, torch's and torch.nn.init's words.
DRAWS = {
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"),
    *("normal", "bernoulli", "multinomial", "poisson"),
    *("uniform_", "normal_", "random_", "bernoulli_", "exponential_"),
    *("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_", "trunc_normal_", "orthogonal_"),
}
SEEDS = {"default_rng", "Generator", "manual_seed", "seed", "SeedSequence", "PCG64", "Philox"}
# `build` sets torch's global generator aside, seeds it for the layers' own initialisers, and puts it back.
SEEDS_HERE = {"fed_lorac/seeds.py", "fed_lorac/models/__init__.py"}
DRAWS_UNDER_BUILD = {f"fed_lorac/models/{name}.py" for name in ("cifar_resnet", "fedmud_cnn", "stems")}
UNPICKLES_PLAIN_VALUES_ONLY = {"fed_lorac/data/cifar.py"}

FILES = sorted(
    file for folder in ("fed_lorac", "strategies", "benchmarks", "tests") for file in (ROOT / folder).rglob("*.py")
)
OURS = [str(file.relative_to(ROOT)) for file in FILES if file.parts[len(ROOT.parts)] in ("fed_lorac", "strategies")]


def tree(file: str | Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def calls(file: str | Path) -> Iterator[tuple[str, ast.Call]]:
    """Each call with its dotted name, as far as that is plain."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keywords(call: ast.Call) -> dict[str | None, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def global_draws(file: str) -> list[str]:
    found = []
    for name, call in calls(file):
        *owner, last = name.split(".")
        from_numpy = owner[-1:] == ["random"] and owner[:1] in (["np"], ["numpy"]) and last not in SEEDS
        from_torch = last in DRAWS and (last.endswith("_") or owner[:1] == ["torch"])
        if from_numpy or (from_torch and "generator" not in keywords(call) and file not in DRAWS_UNDER_BUILD):
            found.append(f"{file}:{call.lineno} {name} draws from a global generator")
        if last in SEEDS and file not in SEEDS_HERE:
            found.append(f"{file}:{call.lineno} {name}: streams come from fed_lorac.seeds")
    return found


def unsafe_loads(file: Path) -> list[str]:
    found = []
    for name, call in calls(file):
        given = keywords(call)
        safe = {
            "torch.load": given.get("weights_only") == "True",
            "np.load": given.get("allow_pickle") == "False",
            "np.lib.format.read_array": given.get("allow_pickle") == "False",
            "pickle.load": False,
            "pickle.loads": "tests" in file.parts,  # of bytes that the test itself made
        }
        if not safe.get(name, True):
            found.append(f"{file}:{call.lineno} {name}")
    return found


def imported(file: str | Path) -> set[str]:
    nodes = [node for node in ast.walk(tree(file)) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names} | {
        node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
    }


def test_the_product_names_its_strategies_by_the_package_that_a_wheel_has() -> None:
    """`strategies` may be a user's own folder, and import-linter does not see the files of `fed_lorac.strategies`."""
    of_a_checkout = {(file, name) for file in OURS for name in imported(file) if name.split(".")[0] == "strategies"}
    assert of_a_checkout == {("fed_lorac/strategies.py", "strategies")}  # for type checkers alone
    assert not [file for file in OURS if any(name.startswith("fed_lorac.strategies.") for name in imported(file))]


def test_every_module_opens_with_its_room() -> None:
    nameless = [str(file.relative_to(ROOT)) for file in FILES if not ast.get_docstring(tree(file))]
    assert not nameless


def test_no_file_of_the_product_outgrows_a_room() -> None:
    assert not [file for file in OURS if len((ROOT / file).read_text(encoding="utf-8").splitlines()) > 300]


def test_randomness_always_has_a_name() -> None:
    assert not [told for file in OURS for told in global_draws(file)]
    assert not [file for file in OURS if "random" in imported(file)]


def test_nothing_from_outside_is_unpickled() -> None:
    pickling = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    assert {file for file in OURS if imported(file) & pickling} <= UNPICKLES_PLAIN_VALUES_ONLY
    assert not [told for file in FILES for told in unsafe_loads(file)]
