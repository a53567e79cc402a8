"""The command line: what it prints, and what its exit codes say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import called
from small_runs import environment, words
from typer.utils import get_params_from_function

from fed_lorac import cli
from fed_lorac.config import load_config, names
from fed_lorac.reporting.gain import recovered_share
from fed_lorac.reporting.sizes import sizes

# METHODS: arXiv 2410.16954, 10 classes; branches, the first convolution's weight and the classifier's.
PAPER = {
    "resnet18": {"full": 11_173_962, "r*k": (73_280, 272_576, 1_069_760), "r": (29_888, 99_008, 375_488)},
    "resnet34": {"full": 21_282_122, "r*k": (140_096, 539_840, 2_138_816), "r": (52_160, 188_096, 731_840)},
    "resnet50": {"full": 23_520_842, "r*k": (131_648, 459_968, 1_773_248), "r": (86_336, 278_720, 1_048_256)},
    "resnet101": {"full": 42_512_970, "r*k": (253_504, 947_392, 3_722_944), "r": (155_968, 557_248, 2_162_368)},
}
KEYS = {
    *("model", "method", "rank", "rank_mode", "dtype", "trainable_parameters", "full_parameters"),
    *("frame_bytes", "message_bytes", "full_frame_bytes", "full_message_bytes", "full_fp32_frame_bytes"),
    "dense_layers",
    "layers",
}


LARGE = [pytest.param(model, marks=pytest.mark.slow) for model in ("resnet34", "resnet50", "resnet101")]


@pytest.mark.parametrize("model", ["resnet18", *LARGE])
def test_sizes_reproduces_the_papers_table_digit_for_digit(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for mode in ("r*k", "r"):
        ranks = [word for rank in ("1", "4", "16") for word in ("--rank", rank)]
        assert called(monkeypatch, "sizes", "--model", model, *ranks, "--rank-mode", mode, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert tuple(row["trainable_parameters"] for row in found) == PAPER[model][mode]
        for row in found:
            assert row.keys() == KEYS
            assert row["full_parameters"] == PAPER[model]["full"]
            assert row["frame_bytes"] - 4 * row["trainable_parameters"] in range(19, 33)
            assert row["full_message_bytes"] > row["full_frame_bytes"] > 4 * row["full_parameters"]


def test_the_papers_shares_follow_from_the_counts() -> None:
    one = sizes("resnet18", rank=1, rank_mode="r*k")
    assert round(100 * (1 - one.trainable_parameters / one.full_parameters), 2) == 99.34  # the paper says 99.35
    assert sizes("resnet18", rank=4).rank_mode == "r*k"
    assert sizes("resnet50", rank=1).rank_mode == "r"
    full = sizes("resnet20", "full")
    assert full.trainable_parameters == full.full_parameters == 272_474
    assert full.message_bytes == full.full_message_bytes


def test_a_run_prints_its_table_and_json_and_can_be_shown_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [part for word in words(run__rounds=1) for part in ("-c", word)]
    assert called(monkeypatch, "run", *settings, "--out", str(tmp_path / "a")) == 0
    shown = capsys.readouterr().out
    for word in ("fog", "snow", "gaussian_noise", "source", "zero-byte", "adapted", "full fine-tuning", "clear air"):
        assert word in shown
    assert called(monkeypatch, "show", str(tmp_path / "a")) == 0
    assert capsys.readouterr().out == shown
    assert called(monkeypatch, "run", *settings, "--out", str(tmp_path / "b"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {
        "source_accuracy",
        "zero_byte_accuracy",
        "adapted_accuracy",
        "per_corruption",
        "total_bytes",
    } <= found.keys()
    assert {"full_total_bytes", "data", "seed", "versions"} <= found.keys()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "-c", "adapter.rnk=3"], 2, "adapter.rank"),
        (["run", "-c", "adapter.rank=many"], 2, "adapter.rank"),
        (["run", "no_such_config"], 2, "quickstart"),
        (["run", "-c", "data.name=cifar10", "-c", "data.root=/nowhere"], 1, "/nowhere"),
        (["show", "/nowhere"], 1, "config.toml"),
        (["pretrain", "--out", "base.bin"], 2, ".safetensors"),
        (["sizes", "--model", "resnet9"], 2, "resnet8"),
        (["sizes", "--model", "resnet8", "--method", "lorac"], 2, "lora-c"),
        (["no-such-command"], 2, "No such command"),
    ],
)
def test_an_error_is_one_message_and_a_nonzero_exit_code(
    arguments: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, *arguments) == code
    shown = capsys.readouterr().err
    assert said in shown.replace("\n", "")
    assert "Traceback" not in shown


def test_pretraining_writes_weights_with_their_provenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fed_lorac.models.weights import read_checkpoint

    place = tmp_path / "base.safetensors"
    settings = ["-c", "width=4", "--epochs", "1", "-c", "run.threads=1"]
    assert called(monkeypatch, "pretrain", *settings, "--out", str(place)) == 0
    said = read_checkpoint(place).metadata
    assert (said["data"], said["model"], said["pretrain_epochs"]) == ("digits", "resnet8", "1")
    assert f"{100 * float(said['test_accuracy']):.2f}" in capsys.readouterr().out
    used = [*words(run__rounds=1, model__weights=str(place))]
    assert called(monkeypatch, "run", *[p for w in used for p in ("-c", w)], "--out", str(tmp_path / "run")) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["base_saw_fleet_images"] == "no"


def test_the_module_is_the_command() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "fed_lorac", "--version"], env=environment(), capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith("fed-lorac ")


COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_tells_what_each_word_means_and_what_holds_without_it(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert called(monkeypatch, name, "--help") == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    declared = cli.app.registered_commands[list(COMMANDS).index(name)].callback
    assert declared is not None
    assert " ".join((declared.__doc__ or "").replace("\\[", "[").split()) in shown
    for parameter in COMMANDS[name].params:
        hint = get_params_from_function(declared)[parameter.name].default
        meaning = str(hint.help)
        assert meaning in shown, (name, parameter.name)
        after = shown.partition(meaning)[2].lstrip()
        switch = getattr(parameter, "is_flag", False) and not parameter.secondary_opts
        assert switch or after.startswith(("[default: ", "[required]")), (name, parameter.name, after[:40])


def script(ending: str) -> list[str]:
    """Our command line with one more command, which ends in its own way."""
    lines = ["import sys", "from fed_lorac import cli, errors", "def broken() -> None:", f"    {ending}"]
    lines += ["cli.app.command()(broken)", "sys.argv = ['fed-lorac', 'broken']", "cli.main()"]
    return [sys.executable, "-c", "\n".join(lines)]


@pytest.mark.parametrize(
    ("ending", "code", "says", "never"),
    [
        ("raise EOFError('No data left in file')", 1, ("EOFError: No data left in file", "Please report"), "Aborted"),
        ("raise ValueError('nobody thought of it')", 1, ("ValueError: nobody thought", "Please report"), "Aborted"),
        ("raise KeyboardInterrupt", 130, ("Interrupted.",), "Traceback"),
        ("raise errors.RunError('told.')", 1, ("RunError: told.",), "Traceback"),
    ],
)
def test_each_way_to_end_a_command_has_its_message_and_exit_code(
    ending: str, code: int, says: tuple[str, ...], never: str
) -> None:
    ended = subprocess.run(script(ending), env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr
    assert all(text in ended.stderr for text in says) and never not in ended.stderr, ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [["methods"], ["methods", "--json"], ["--version"]], ids=" ".join)
def test_a_closed_pipe_is_no_error(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "fed_lorac", *words]
    ended = subprocess.run(command, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert ended.stderr == ""


def test_the_recovered_share_is_of_full_fine_tunings_gain() -> None:
    assert recovered_share(0.70, 0.76, 0.80) == pytest.approx(0.6)
    assert recovered_share(0.70, 0.76, 0.70) is None


def test_runs_compare_only_over_one_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: dict[str, dict[str, object]] = {
        "lora": {},
        "full": {"adapter__method": "full", "strategy__name": "fedavg"},
        "other": {"fleet__severities": "4"},
    }
    for name, changes in runs.items():
        asked = [part for word in words(run__rounds=1, **changes) for part in ("-c", word)]
        assert called(monkeypatch, "run", *asked, "--out", str(tmp_path / name)) == 0
    capsys.readouterr()
    assert called(monkeypatch, "compare", str(tmp_path / "lora"), str(tmp_path / "full")) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "source",
        "local batch norm, nothing sent",
        "lora-c r=2 (auto), merged svd",
        "full fine-tuning",
    ]
    assert len({line.count("|") for line in lines}) == 1
    assert "100.00 %" in lines[-1]
    for target, by in (("0.01", "by round 1"), ("1", "not reached")):
        assert called(monkeypatch, "compare", str(tmp_path / "full"), "--target", target) == 0
        assert by in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| full"))
    assert called(monkeypatch, "compare", str(tmp_path / "lora"), str(tmp_path / "other")) == 1
    assert "differ in weather" in capsys.readouterr().err


def test_every_engine_in_the_config_has_an_implementation() -> None:
    from fed_lorac.simulation.engines import ENGINES

    assert set(ENGINES) == set(names.ENGINES)


def test_config_prints_what_loads_as_the_same_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-c", "strategy.aggregator=krum", "-c", "malicious=2"]
    assert called(monkeypatch, "config", "fog_snow_noise", *words) == 0
    printed = capsys.readouterr().out
    assert "malicious = 2  # number of malicious cameras that krum assumes" in printed
    (tmp_path / "mine.toml").write_text(printed)
    assert load_config(tmp_path / "mine.toml") == load_config("fog_snow_noise", words[1::2])
    assert called(monkeypatch, "config", "-c", "strategy.krum.malicious=1") == 2
    assert "or choose krum" in capsys.readouterr().err
