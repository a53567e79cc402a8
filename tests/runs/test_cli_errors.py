"""Laws of a command line that is given what it cannot use: one message, the right exit code, nothing left behind."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import called
from small_runs import environment

from fed_lorac import cli

COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
NUMBERS = [
    (name, parameter.opts[0])
    for name, command in COMMANDS.items()
    for parameter in command.params
    if parameter.type.name.startswith("float")
]


def test_there_are_options_that_are_numbers() -> None:
    assert {("pretrain", "--lr"), ("compare", "--target"), ("cache", "--older-than")} < set(NUMBERS)


@pytest.mark.parametrize(("option", "value"), [*itertools.product(NUMBERS, ["nan", "inf"])], ids=str)
def test_an_option_that_is_a_number_is_a_finite_one(
    option: tuple[str, str], value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, word = option
    needed = ["folder" for parameter in COMMANDS[name].params if parameter.required]
    assert called(monkeypatch, name, *needed, word, value) == 2
    assert f"Invalid value for '{word}'" in capsys.readouterr().err


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [["--version"], ["config"]], ids=" ".join)
def test_a_full_disk_behind_standard_output_is_one_line(words: list[str]) -> None:
    command = [sys.executable, "-m", "fed_lorac", *words]
    with FULL.open("w") as full:
        ended = subprocess.run(command, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith("RunError: Output must be writable; standard output: No space left on device.")


@pytest.mark.parametrize("name", ["show", "compare", "report"])
def test_a_folder_that_is_not_there_is_said_to_be_not_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, name, str(tmp_path / "typo")) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path / 'typo'} is not there." in said
    assert "Errno" not in said and "--resume" not in said


@pytest.mark.parametrize("name", ["show", "compare", "report"])
def test_of_a_folder_of_runs_its_runs_are_offered(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outs" / "a").mkdir(parents=True)
    (tmp_path / "outs" / "a" / "config.toml").touch()
    assert called(monkeypatch, name, str(tmp_path / "outs")) == 1
    assert f"Did you mean one of {tmp_path / 'outs'}/*?" in capsys.readouterr().err
    assert called(monkeypatch, name, str(tmp_path)) == 1
    assert "Did you mean" not in capsys.readouterr().err
