"""Laws of logs: they have the run's own numbers, go on where the run does, and change nothing of it."""

import json
import logging
import math
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from interrupted import Ended, check_equal
from small_runs import environment, rows, tiny, words

import fed_lorac as fl
from fed_lorac.config import Config
from fed_lorac.errors import RunError
from fed_lorac.reporting.logs.numbers import of_round, of_summary
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run


def told(folder: Path, name: str = "told") -> list[list[Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def as_if_without(folder: Path) -> Path:
    """A run's folder once its config names no log."""
    found = json.loads((folder / "summary.json").read_text())
    found["config"] = {key: value for key, value in found["config"].items() if key not in ("run.log", "run.options")}
    (folder / "summary.json").write_text(json.dumps(found))
    return folder


def test_a_log_of_ones_own_has_every_row_and_changes_no_byte_of_the_run(tmp_path: Path) -> None:
    run(tiny(), tmp_path / "without", Watch())
    config = fl.load_config(tiny(), {"run.log": "own_logs:Told", "run.options.name": "mine"})
    run(config, tmp_path / "with", Watch())
    found = told(tmp_path / "with", "mine")
    assert [line[0] for line in found] == ["begun", "round", "round", "ended", "closed"]
    assert [line[1] for line in found[1:3]] == rows(tmp_path / "with" / "rounds.jsonl")
    check_equal(as_if_without(tmp_path / "with"), tmp_path / "without")


def test_a_log_that_fails_is_left_out_and_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run(tiny(run__log="own_logs:Failing", run__rounds=3), tmp_path, Watch())
    assert [line[0] for line in told(tmp_path)] == ["begun", "round"]
    assert "own_logs:Failing' failed, and the run goes on without it: ConnectionError: nobody there" in caplog.text
    assert len(rows(tmp_path / "rounds.jsonl")) == 3


def test_a_log_hears_of_ctrl_c_and_of_going_on_and_may_be_left_out_then(tmp_path: Path) -> None:
    config = tiny(run__log="own_logs:Told", run__rounds=3)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, Ended(1))
    assert told(tmp_path)[-2:] == [["ended", 1, True], ["closed"]]
    run(config, tmp_path, Watch(), resume=True)
    again = told(tmp_path)[4:]
    assert [line[0] for line in again] == ["begun", "resumed", "round", "round", "ended", "closed"]
    assert again[0] == ["begun", 3, True] and again[1] == ["resumed", 1]
    fl.run(resume=tmp_path, overrides={"run.log": ""}, progress=False)
    assert len(told(tmp_path)) == 10


@pytest.mark.parametrize("library", ["tensorboard", "wandb", "mlflow"])
def test_a_library_that_is_missing_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(RunError, match=rf'pip install "fed-lorac\[{library}\]"'):
        run(tiny(run__log=library), tmp_path / "run", Watch())
    assert not (tmp_path / "run").exists()


def test_numbers_are_grouped_and_what_was_not_measured_has_none() -> None:
    row = {"round": 2, "skipped": False, "reasons": {}, "accuracy": 0.75, "accuracy_zero_byte": 0.5}
    more = {"uplink_bytes_on_air": 7, "full_uplink_frame_bytes": 9, "energy_radio_j": 1.5, "aggregation_error": None}
    assert of_round(row | more) == {
        "accuracy/accuracy": 0.75,
        "accuracy/accuracy_zero_byte": 0.5,
        "accuracy/gain": 0.25,
        "bytes/uplink_bytes_on_air": 7,
        "full/full_uplink_frame_bytes": 9,
        "energy/energy_radio_j": 1.5,
    }
    assert "accuracy/gain" not in of_round(row | {"accuracy_zero_byte": None})
    assert of_summary({"config": {"run.rounds": 3}, "days": {"lte-m": {"full": 2.0}}, "label": "a"}) == {
        "summary/days/lte-m/full": 2.0
    }


def cut_and_gone_on(config: Config, folder: Path) -> None:
    """A run of three rounds whose second one was shown, and then lost with its checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        run(config, folder, Ended(2))
    run(config, folder, Watch(), resume=True)


def check_metrics(found: dict[str, dict[int, float]], folder: Path) -> None:
    """Every number of the ledger and of the summary, once a round."""
    for row in rows(folder / "rounds.jsonl"):
        expected = of_round(row)
        assert expected.keys() > {"accuracy/gain", "time/round_time_s"}
        for name, value in expected.items():
            assert math.isclose(found[name][row["round"]], value, rel_tol=1e-6), name
    for name, value in of_summary(json.loads((folder / "summary.json").read_text())).items():
        assert math.isclose(found[name][3], value, rel_tol=1e-6), name
    assert all(set(steps) <= {1, 2, 3} for steps in found.values())


@pytest.mark.slow
def test_tensorboard_has_the_ledgers_numbers_once_and_goes_on(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    hparams = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    cut_and_gone_on(tiny(run__rounds=3, run__log="tensorboard", checkpoint_every=2), tmp_path)
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"), {"scalars": 0}).Reload()
    scalars = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert [step for step, _ in scalars["accuracy/accuracy"]] == [1, 2, 3]
    check_metrics({name: dict(its) for name, its in scalars.items()}, tmp_path)
    said = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    began = hparams.HParamsPluginData.FromString(said).session_start_info.hparams
    assert began["adapter.method"].string_value == "lora-c" and began["run.rounds"].number_value == 3


@pytest.mark.slow
def test_mlflow_has_the_ledgers_numbers_and_goes_on_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    config = tiny(run__rounds=3, run__log="mlflow", checkpoint_every=2)
    cut_and_gone_on(config, tmp_path / "run")
    client = mlflow.MlflowClient()
    (logged,) = client.search_runs([client.get_experiment_by_name("fed-lorac").experiment_id])
    assert logged.data.params == {key: str(value) for key, value in config.to_flat().items()}
    assert logged.info.status == "FINISHED" and logged.info.run_name == "run"
    history = {name: client.get_metric_history(logged.info.run_id, name) for name in logged.data.metrics}
    check_metrics({name: {one.step: one.value for one in its} for name, its in history.items()}, tmp_path / "run")
    fl.run(resume=tmp_path / "run", overrides={"run.rounds": 4}, progress=False)
    assert client.get_run(logged.info.run_id).data.tags["run.rounds"] == "4"


def records(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log, in blocks of 32 KiB, behind a head of seven bytes."""
    block, at, whole = 1 << 15, 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:  # no head fits: padding
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the only part of a record, or the last
            yield whole
            whole = b""


@pytest.mark.slow
def test_wandb_offline_has_the_ledgers_numbers(tmp_path: Path) -> None:
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    # In a process of its own: the library leaves one beside the process that it was begun in.
    asked = [word for setting in words(run__log="wandb", run__rounds=3) for word in ("-c", setting)]
    command = [sys.executable, "-m", "fed_lorac", "run", *asked, "--out", str(tmp_path / "run")]
    away = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    subprocess.run(command, env=environment(**away), cwd=tmp_path, check=True, capture_output=True)
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    found, config = dict[str, dict[int, float]](), dict[str, Any]()
    for data in records(file.read_bytes()):
        record = messages.Record.FromString(data)
        said = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for name, value in said.items():
            found.setdefault(name, {})[said["_step"]] = value
        for item in record.summary.update:
            found.setdefault("/".join(item.nested_key) or item.key, {})[3] = json.loads(item.value_json)
        config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    check_metrics({name: its for name, its in found.items() if name[0] != "_"}, tmp_path / "run")
    assert config["adapter.method"] == "lora-c" and config["run.rounds"] == 3
