"""Laws of checkpoints: what was written comes back, two are kept, a damaged one is passed over and named."""

import logging
from pathlib import Path
from threading import Timer

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fed_lorac.aggregation.delta_sum import DeltaSum
from fed_lorac.errors import RunError
from fed_lorac.records.checkpoint import ASIDE, Checkpoint, Checkpoints
from fed_lorac.simulation.resume import packed_tensors, unpacked_tensors


def at(round: int) -> Checkpoint:
    """A run after that many rounds; round 2 was skipped."""
    updates = {r: f"update of round {r}".encode() for r in range(1, round + 1) if r != 2}
    tensors = {
        "kept fc.weight dense": torch.full((3,), float(round), dtype=torch.float64),
        "node 1000": torch.arange(9),
    }
    return Checkpoint(round, {"ledger": {"rounds": 10 * round}, "confirmed": {"0": round}}, tensors, updates)


def equal(a: Checkpoint, b: Checkpoint) -> bool:
    same = all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
    return same and (a.round, a.facts, a.updates, a.tensors.keys()) == (b.round, b.facts, b.updates, b.tensors.keys())


def written(folder: Path, rounds: int) -> Checkpoints:
    kept = Checkpoints(folder)
    for round in range(rounds + 1):
        kept.write(at(round))
    return kept


def files(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("round-*"))


def newest(folder: Path) -> Checkpoint:
    found = Checkpoints(folder).newest()
    assert found is not None
    return found


def test_what_was_written_comes_back(tmp_path: Path):
    assert Checkpoints(tmp_path).newest() is None
    for round in range(4):
        written(tmp_path / str(round), round)
        assert equal(newest(tmp_path / str(round)), at(round))


def test_two_are_kept(tmp_path: Path):
    written(tmp_path, 5)
    assert [path.name.split("-")[1] for path in files(tmp_path)] == ["000004", "000005"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2 + 4  # and the four updates


def test_a_run_goes_on_writing_after_it_was_read(tmp_path: Path):
    written(tmp_path, 3)
    again = Checkpoints(tmp_path)
    again.newest()
    again.write(at(4))
    assert equal(newest(tmp_path), at(4))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), how=st.sampled_from(["flip", "cut", "empty"]))
def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture, where: float, how: str
):
    folder = tmp_path_factory.mktemp("run")
    written(folder, 3)
    path = files(folder)[-1]
    data = bytearray(path.read_bytes())
    at_byte = int(where * len(data))
    if how == "flip":
        data[at_byte] ^= 1 << at_byte % 8
    path.write_bytes(data[: {"flip": len(data), "cut": at_byte, "empty": 0}[how]])
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert equal(newest(folder), at(2))
    assert path.name in caplog.text and "the one before" in caplog.text
    assert not path.exists() and path.with_name(path.name + ASIDE).exists()
    assert equal(newest(folder), at(2))


@pytest.mark.parametrize("how", ["changed", "missing", "a folder"])
def test_a_checkpoint_whose_update_cannot_be_used_is_kept_aside(tmp_path: Path, how: str):
    written(tmp_path, 3)
    newer, update = files(tmp_path)[-1], tmp_path / "checkpoints" / "update-000003.frame"
    data = newer.read_bytes()
    if how == "changed":
        update.write_bytes(b"x" + update.read_bytes()[1:])
    else:
        update.unlink()
    if how == "a folder":  # which the system refuses to read
        update.mkdir()
    assert equal(newest(tmp_path), at(2))
    assert newer.with_name(newer.name + ASIDE).read_bytes() == data


def test_an_update_that_is_late_on_a_network_is_waited_for(tmp_path: Path):
    written(tmp_path, 3)
    update = tmp_path / "checkpoints" / "update-000003.frame"
    frame = update.read_bytes()
    update.unlink()
    late = Timer(0.3, update.write_bytes, [frame])
    late.start()
    assert equal(newest(tmp_path), at(3))
    late.join()


def test_where_none_can_be_used_all_stay_as_they_are(tmp_path: Path):
    written(tmp_path, 3)
    for path in files(tmp_path):
        path.write_bytes(b"")
    before = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    with pytest.raises(RunError, match=r"none of the 2 .* can be used .*round-000003.*round-000002"):
        Checkpoints(tmp_path).newest()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == before


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path):
    written(tmp_path, 1)
    litter = tmp_path / "checkpoints" / ".round-000002-ab.safetensors.77-aa.tmp"
    litter.write_bytes(b"half")
    assert equal(newest(tmp_path), at(1)) and not litter.exists()


def test_an_old_checkpoint_that_cannot_be_removed_stays_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    unlink = Path.unlink

    def refused(self: Path, missing_ok: bool = False) -> None:
        if self.name.startswith("round-000000"):
            raise PermissionError(1, "Operation not permitted")
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    written(tmp_path, 3)
    assert equal(newest(tmp_path), at(3)) and len(files(tmp_path)) == 3
    assert "is not needed any more, and stays: Operation not permitted." in caplog.text


@given(kind=st.text(), name=st.text(), value=st.floats(-1, 1))
def test_sums_of_any_name_come_back_from_a_checkpoint(kind: str, name: str, value: float):
    total = DeltaSum((2, 3)).add_dense(torch.full((2, 3), value), 1.0)
    states, sums = unpacked_tensors(packed_tensors({}, {kind: {name: total}}))
    assert not states and torch.equal(sums[kind][name].dense64(), total.dense64())
