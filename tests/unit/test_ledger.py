"""Laws of the ledger and of the files beside it: whole or not there, and readable by anyone."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import ROOT

from fed_lorac.errors import RunError
from fed_lorac.records.columns import CAMERA_COLUMNS, ROUND_COLUMNS
from fed_lorac.records.ledger import Ledger, each_row, read_rows
from fed_lorac.runtime import files, tensor_files

BYTES = {f"{way}_{what}_bytes": 10 for way in ("uplink", "downlink") for what in ("payload", "frame", "message")}
ALL_BYTES = {
    f"{whose}{way}_{what}_bytes": 10
    for whose in ("", "full_", "full_fp32_")
    for way in ("uplink", "downlink", "multicast_downlink")
    for what in ("payload", "frame", "message")
}
ON_AIR = {"uplink_bytes_on_air": 12, "downlink_bytes_on_air": 12}


def a_round(**changes: object) -> dict[str, object]:
    return {
        "round": 1,
        "cameras_counted": 11,
        "cameras_left_out": 1,
        "skipped": False,
        "reasons": {"truncated": 1},
        "cameras_measured": 11,
        "accuracy": 0.75,
        "accuracy_clean": None,
        "accuracy_source": 0.5,
        "accuracy_zero_byte": None,
        **ALL_BYTES,
        **ON_AIR,
        "aggregation_error": 0.0,
        "round_time_s": 2.0,
        "energy_radio_j": 4.0,
        "energy_compute_j": 0.0,
        "full_fp32_energy_radio_j": None,
        "seconds": 2,
    } | changes


def a_camera(**changes: object) -> dict[str, object]:
    return {
        "round": 1,
        "camera": 7,
        "corruption": "fog",
        "severity": 3,
        "link": "lte-m",
        "status": "counted",
        "reason": "",
        "num_examples": 500,
        "train_loss": 0.5,
        **BYTES,
        **ON_AIR,
        "uplink_air_time_s": 1.5,
        "downlink_time_s": 0.5,
        "elapsed_s": 1.5,
        "compute_s": 0.0,
        "reply_s": None,
        "energy_radio_j": 2.5,
        "energy_compute_j": 0.0,
        "accuracy": 0.8,
        "accuracy_clean": None,
        "accuracy_source": 0.5,
        "accuracy_zero_byte": 0.7,
    } | changes


def test_rows_come_back_as_they_were_recorded(tmp_path: Path) -> None:
    with Ledger(tmp_path / "new" / "run") as ledger:
        ledger.round(**a_round())
        ledger.round(**a_round(round=2))
        ledger.camera(**a_camera())
    rounds = read_rows(tmp_path / "new" / "run" / "rounds.jsonl")
    assert rounds.rows == [a_round(), a_round(round=2)]
    assert rounds.torn_bytes == 0
    assert read_rows(tmp_path / "new" / "run" / "cameras.jsonl").rows == [a_camera()]


def test_columns_stand_in_the_table_s_order(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.round(**dict(reversed(a_round().items())))
        ledger.camera(**dict(reversed(a_camera().items())))
    assert list(read_rows(tmp_path / "rounds.jsonl").rows[0]) == list(ROUND_COLUMNS)
    assert list(read_rows(tmp_path / "cameras.jsonl").rows[0]) == list(CAMERA_COLUMNS)


def test_a_missing_or_unknown_column_is_refused_by_name(tmp_path: Path) -> None:
    missing = a_round()
    del missing["seconds"]
    with Ledger(tmp_path) as ledger:
        with pytest.raises(RunError, match="missing: seconds; unknown: none"):
            ledger.round(**missing)
        with pytest.raises(RunError, match="missing: none; unknown: colour"):
            ledger.camera(**a_camera(colour="red"))
    assert read_rows(tmp_path / "rounds.jsonl").rows == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("round", 1.0),
        ("round", True),
        ("round", "1"),
        ("round", None),
        ("uplink_frame_bytes", np.ones(1)),
        ("uplink_frame_bytes", torch.tensor(4)),
        ("accuracy", "0.7"),
        ("accuracy", False),
        ("accuracy", torch.tensor(0.7)),
        ("accuracy", np.array(0.7)),
        ("skipped", 0),
        ("reasons", ["truncated"]),
        ("reasons", {"truncated": 0.5}),
        ("reasons", {1: 1}),
    ],
)
def test_an_ill_typed_value_is_refused_by_column(tmp_path: Path, column: str, value: object) -> None:
    with Ledger(tmp_path) as ledger, pytest.raises(RunError, match=f"Column '{column}'"):
        ledger.round(**a_round(**{column: value}))
    assert (tmp_path / "rounds.jsonl").read_bytes() == b""


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), None])
def test_a_number_that_is_not_finite_is_written_as_null(tmp_path: Path, value: object) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.camera(**a_camera(train_loss=value))
    text = (tmp_path / "cameras.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["train_loss"] is None


def test_numpy_s_numbers_are_numbers(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.camera(**a_camera(camera=np.int64(3), train_loss=np.float32(0.5)))
    row = read_rows(tmp_path / "cameras.jsonl").rows[0]
    assert (row["camera"], row["train_loss"]) == (3, 0.5)


@settings(max_examples=50)
@given(reason=st.text(), big=st.integers(0, 10**30))
def test_any_text_stays_on_one_line(tmp_path_factory: pytest.TempPathFactory, reason: str, big: int) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    with Ledger(folder) as ledger:
        ledger.camera(**a_camera(reason=reason, uplink_frame_bytes=big))
    row = read_rows(folder / "cameras.jsonl").rows[0]
    assert (row["reason"], row["uplink_frame_bytes"]) == (reason, big)
    assert (folder / "cameras.jsonl").read_bytes().count(b"\n") == 1


def test_a_torn_last_line_is_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.round(**a_round())
        ledger.round(**a_round(round=2))
    path = tmp_path / "rounds.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    torn = read_rows(path)
    assert [row["round"] for row in torn.rows] == [1]
    assert torn.torn_bytes == len(whole) // 2 - 30
    assert list(each_row(path)) == torn.rows


def test_opening_again_cuts_a_torn_line_and_goes_on(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.round(**a_round())
    with (tmp_path / "rounds.jsonl").open("ab") as file:
        file.write(b'{"round": 2, "cam')
    with Ledger(tmp_path) as ledger:
        ledger.round(**a_round(round=2))
    assert [row["round"] for row in read_rows(tmp_path / "rounds.jsonl").rows] == [1, 2]


@pytest.mark.parametrize("line", [b"{]\n", b"\n", b"[1]\n", b"\xff\n"])
def test_a_damaged_line_before_the_last_is_an_error_with_its_number(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(b'{"round": 1}\n' + line + b'{"round": 3}\n')
    with pytest.raises(RunError, match="line 2 of"):
        read_rows(path)


def test_a_file_that_is_not_there_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="run's folder"):
        read_rows(tmp_path / "rounds.jsonl")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="--out"):
        Ledger(tmp_path / "file")


def test_a_killed_run_leaves_whole_rows(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from test_ledger import a_round; from fed_lorac.records.ledger import Ledger\n"
        "ledger, n = Ledger(sys.argv[1]), 0\n"
        "while True:\n"
        "    n += 1; ledger.round(**a_round(round=n))\n"
        "    if n == 50: print('ready', flush=True)\n"
    )
    paths = [str(Path(__file__).parent), str(ROOT / "tests/helpers"), str(ROOT)]
    command = [sys.executable, "-c", script, str(tmp_path), *paths]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    rows = read_rows(tmp_path / "rounds.jsonl").rows
    assert [row["round"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 50


# files.py


def test_a_file_is_replaced_whole_and_leaves_no_litter(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "a", b"old")
    files.write_text(tmp_path / "a", "né\n")
    assert (tmp_path / "a").read_bytes() == "né\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(RunError, match=r"a: Is a directory. Choose another name"):
        files.write_bytes(tmp_path / "a", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_file_has_the_rights_that_the_user_s_mask_leaves(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    files.write_bytes(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_tensors_come_back_whatever_their_strides_and_shared_memory(tmp_path: Path) -> None:
    x = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {
        "a": x,
        "b": x.transpose(0, 2),
        "c": x[0],
        "n": torch.tensor(3),
        "e": torch.ones(0),
        "p": torch.nn.Parameter(x),
    }
    back = safetensors.torch.load_file(tensor_files.write_tensors(tmp_path / "t.safetensors", tensors, {"seed": "1"}))
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[k], tensors[k]) for k in back)


def test_equal_tensors_and_metadata_give_equal_files_in_every_process() -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import torch; from fed_lorac.runtime.tensor_files import tensor_bytes\n"
        "print(tensor_bytes({'b': torch.ones(3), 'a': torch.ones(2)}, {k: k for k in 'fedcba'}).hex())\n"
    )
    command = [sys.executable, "-c", script, str(ROOT)]
    here = tensor_files.tensor_bytes({"a": torch.ones(2), "b": torch.ones(3)}, {k: k for k in "abcdef"})
    assert subprocess.check_output(command, text=True).strip() == here.hex()
    assert int.from_bytes(here[:8], "little") % 8 == 0
    with_metadata = safetensors.torch.load(here)
    assert with_metadata["b"].tolist() == [1, 1, 1]
