"""Every example runs as it stands, offline and in seconds, and says what its reader is told it says."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from small_runs import ROOT, environment

EXAMPLES = ROOT / "examples"
SAYS = {
    "one_run": [r"<Run .*one-run: lora-c r=2", "fog", "times as many bytes", r"Camera 0 sees a \d"],
    "lora_c_on_your_network": [r"numbers to send, of 11,181,642", "Merged: ResNet"],
    "one_round_by_hand": [r"bytes up, \d+ bytes down", r"camera 1: loss"],
    "your_own_serverapp": ["round 3: loss"],
}


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs_as_it_stands(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    told = capsys.readouterr().out
    for said in SAYS[name]:
        assert re.search(said, told), told
    losses = [float(number) for number in re.findall(r"loss (?:[\d.]+ -> )?([\d.]+)", told)]
    assert name == "one_run" or losses[-1] < 2.0


def test_one_round_by_hand_is_a_page() -> None:
    assert len((EXAMPLES / "one_round_by_hand.py").read_text(encoding="utf-8").splitlines()) <= 85


@pytest.mark.slow
def test_your_own_serverapp_runs_on_flowers_own_runtime(tmp_path: Path) -> None:
    script = (
        "from flwr.simulation import run_simulation; import your_own_serverapp as own; "
        "run_simulation(own.server, own.client, own.CAMERAS)"
    )
    settings = environment(PYTHONPATH=os.pathsep.join([str(ROOT), str(EXAMPLES)]))
    settings.pop("RAY_ADDRESS", None)
    told = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=settings, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0 and "round 3: loss" in told.stdout, told.stdout + told.stderr


def outputs(cell: Any, kind: str) -> str:
    """What a cell shows, in one of the forms that a notebook takes."""
    shown = [str(output.data.get(kind, "")) for output in cell.get("outputs", ()) if "data" in output]
    return "".join(shown) + "".join(output.get("text", "") for output in cell.get("outputs", ()))


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    notebook = nbformat.read(EXAMPLES / "fed_lorac_in_a_notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]  # it is kept without what it showed
    folder = tmp_path_factory.mktemp("notebook")
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("IPYTHONDIR", str(folder))
        client.execute(env=dict(os.environ))
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_progress_in_place(executed: list[Any]) -> None:
    shown = [output for output in executed[1].outputs if output.output_type == "display_data"]
    assert len(shown) == 1  # one place, shown anew
    assert "round 3/3" in shown[0].data["text/plain"] and "3/3" in shown[0].data["text/html"]
    assert not [output for output in executed[1].outputs if output.output_type == "stream"]


@pytest.mark.slow
def test_the_notebook_shows_a_run_as_its_tables(executed: list[Any]) -> None:
    assert "fleet mean" in outputs(executed[1], "text/html") and "<Run " in outputs(executed[1], "text/plain")
    assert "<table" in outputs(executed[2], "text/html")
    assert "full fine-tuning" in outputs(executed[4], "text/plain") and "100 %" in outputs(executed[4], "text/plain")
