"""Laws of where strategies are imported from: one door for all, and each class once under either name of the folder."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from small_runs import ROOT, environment

from fed_lorac.server.traits import Traits

door = import_module("fed_lorac.strategies")
FILES = sorted(path.stem for path in (ROOT / "strategies").glob("[!_]*.py"))


def test_the_door_has_every_strategy_of_every_file_and_nothing_else() -> None:
    files = [import_module(f"fed_lorac.strategies.{name}") for name in FILES]
    public = {name: getattr(file, name) for file in files for name in file.__all__}
    classes = {name for name, it in public.items() if isinstance(it, type) and issubclass(it, Traits)}
    assert {name: public[name] for name in classes} == {name: getattr(door, name) for name in door.__all__}
    assert classes <= set(dir(door))


def test_a_name_that_the_door_lacks_is_said_so() -> None:
    with pytest.raises(AttributeError, match=r"'fed_lorac\.strategies' has no attribute 'FedSgd'"):
        _ = door.FedSgd


IMPORTS = (
    "from fed_lorac.strategies import MergedFedAvg as a",
    "from strategies.merged import MergedFedAvg as b",
    "from strategies import MergedFedAvg as c",
    "from fed_lorac.strategies.merged import MergedFedAvg as d",
)


@pytest.mark.parametrize("imports", [IMPORTS, IMPORTS[1:] + IMPORTS[:1]], ids=["fed_lorac first", "strategies first"])
def test_in_a_checkout_a_class_is_the_same_by_either_name(imports: tuple[str, ...], tmp_path: Path) -> None:
    lines = (*imports, "assert a is b is c is d and a.__module__ == 'fed_lorac.strategies.merged'")
    subprocess.run([sys.executable, "-c", "; ".join(lines)], cwd=tmp_path, env=environment(), check=True)


def test_the_door_alone_imports_no_strategy() -> None:
    lines = "import sys, fed_lorac.strategies; assert 'fed_lorac.strategies.merged' not in sys.modules"
    subprocess.run([sys.executable, "-c", lines], env=environment(), check=True)
