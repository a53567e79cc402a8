"""Laws of `import fed_lorac as fl`: what it costs, what a run gives back, and what it leaves of this process."""

import inspect
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from small_runs import TINY, environment, rows, tiny

import fed_lorac as fl
from fed_lorac import cli
from fed_lorac.adapters.deltas import fold
from fed_lorac.api.start import prepare
from fed_lorac.experiment.build import build_experiment
from fed_lorac.fleet.camera_data import camera_data
from fed_lorac.records.columns import CAMERA_COLUMNS, ROUND_COLUMNS
from fed_lorac.records.run_folder import RunFolder, check_new
from fed_lorac.reporting.watch import Watch
from fed_lorac.training.accuracy import accuracy


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> fl.Run:
    return fl.run(TINY, out=tmp_path_factory.mktemp("door") / "run", progress=False)


def test_the_door_itself_costs_no_pytorch() -> None:
    heavy = "sorted({'torch', 'flwr', 'ray', 'pandas', 'numpy', 'rich'} & set(sys.modules))"
    opened = "import fed_lorac as fl, sys; from fed_lorac import run, load_run, Run, ConfigError; dir(fl)"
    script = f"{opened}; print({heavy}); fl.load_config(); print({heavy})"
    told = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["[]", "['numpy', 'torch']"]  # a config asks its methods' classes


def test_what_only_weather_and_clusters_need_is_loaded_when_they_are_made() -> None:
    opened = "import sys, fed_lorac.simulation.run, fed_lorac.experiment.build, fed_lorac.client.handlers"
    asked = (
        "from fed_lorac.strategies import ClusteredFedAvg; print({'scipy.ndimage', 'scipy.cluster'} & set(sys.modules))"
    )
    told = subprocess.run(
        [sys.executable, "-c", f"{opened}; {asked}"], env=environment(), capture_output=True, text=True, check=True
    )
    assert told.stdout == "set()\n"


def test_every_public_name_is_there_is_listed_and_says_what_it_is() -> None:
    assert set(fl.__all__) <= set(dir(fl))
    for name in fl.__all__:
        thing = getattr(fl, name)
        assert name == "__version__" or inspect.getdoc(thing), name
    for name, method in inspect.getmembers(fl.Run, lambda member: callable(member) or isinstance(member, property)):
        assert name.startswith("_") or inspect.getdoc(method), name


def test_type_checkers_see_what_is_imported_on_use() -> None:
    text = Path(fl.__file__).read_text(encoding="utf-8")
    typed = text.partition("if TYPE_CHECKING:")[2].partition("try:")[0]
    for name, place in fl._FOUND_IN.items():
        module, _, attribute = place.partition(":")
        package, _, last = module.rpartition(".")
        found = (module, attribute) if attribute else (package, last)
        line = next(line for line in typed.splitlines() if f" {name}" in line.replace(",", " ,") and " import " in line)
        assert line.split()[1] == found[0] and found[1] in line, name
    with pytest.raises(AttributeError, match="no attribute 'lora_d'"):
        fl.lora_d  # type: ignore[attr-defined]  # noqa: B018  (looking is asking)


def test_a_run_gives_its_tables_as_data_frames(done: fl.Run) -> None:
    assert list(done.rounds.columns) == list(ROUND_COLUMNS) and list(done.cameras.columns) == list(CAMERA_COLUMNS)
    assert len(done.rounds) == 2 and len(done.cameras) == 2 * 4
    kept = rows(done.path / "rounds.jsonl")
    assert done.rounds["accuracy"].tolist() == [row["accuracy"] for row in kept]
    assert done.rounds["uplink_message_bytes"].dtype == np.int64 and done.rounds["accuracy_clean"].dtype == np.float64
    assert done.rounds["uplink_message_bytes"].sum() == done.cameras["uplink_message_bytes"].sum()
    assert isinstance(done.cameras.groupby("corruption")["train_loss"].mean(), pd.Series)


@pytest.mark.parametrize(
    "settings",
    [
        {"fleet.link": "nb-iot-nb1", "fleet.nb-iot.loss": 0.2, "fleet.nb-iot.attempts": 2, "quorum": 0.1},
        {"fleet.link": "nb-iot-nb1, lorawan-dr5", "fleet.nb-iot.downlink": "multicast"},
        {"fleet.deal": "overlapping", "evaluate_cameras": 1},
        {"local.objective": "entropy", "local.lr": 0.001},
        {"adapter.layers": "auto", "adapter.budget_bytes": 4000},
    ],
    ids=["loses", "multicast", "together", "without labels", "chooses"],
)
def test_a_run_gives_every_column_that_its_files_have(settings: dict[str, object], tmp_path: Path) -> None:
    run = fl.run(TINY | {"run.rounds": 1}, settings, out=tmp_path / "run", progress=False)
    kept = rows(run.path / "rounds.jsonl")
    assert list(kept[0]) == list(run.rounds.columns) and not run.rounds["seconds"].isna().any()
    assert list(rows(run.path / "cameras.jsonl")[0]) == list(run.cameras.columns)
    assert set(kept[0]) > set(ROUND_COLUMNS)  # each of these fleets has columns of its own


def test_a_column_that_was_never_measured_is_of_numbers_too(tmp_path: Path) -> None:
    run = fl.run(TINY, {"strategy.name": "zero-byte", "run.rounds": 1}, out=tmp_path / "run", progress=False)
    assert run.cameras["train_loss"].dtype == np.float64 and run.cameras["train_loss"].isna().all()


def test_its_summary_and_config_are_those_of_its_files(done: fl.Run) -> None:
    assert done.summary == json.loads((done.path / "summary.json").read_text())
    assert done.config == fl.load_config(done.path / "config.toml") == fl.load_config(TINY)
    assert fl.load_run(str(done.path)) == done and done.finished


def test_its_networks_score_on_stored_pixels_what_was_measured(done: fl.Run) -> None:
    experiment, scores = build_experiment(done.config), []
    for camera in experiment.fleet.cameras:
        seen, network = camera_data(experiment.data, camera, 0), done.model(camera.id)
        scores.append(accuracy(network.deployed.network, seen.test, seen.test_labels))
        assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert done.summary["adapted_accuracy"] == pytest.approx(np.mean(scores), abs=1e-9)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    shared = done.model()
    logits = shared(fl.corrupt(images, "fog", 3, np.random.default_rng(0)))
    assert logits.shape == (3, len(shared.classes)) and logits.dtype == torch.float32
    assert torch.equal(shared(torch.from_numpy(images)), shared(images))
    assert not torch.equal(shared(images), done.model(1)(images))


@pytest.mark.parametrize("images", [torch.full((2, 3, 32, 32), 0.5), torch.zeros(2, 3, 32, 32, dtype=torch.uint8)])
def test_other_pixels_are_refused_with_a_remedy(done: fl.Run, images: torch.Tensor) -> None:
    with pytest.raises(fl.DataError, match=r"bytes of the shape \(N, H, W, 3\).*permute"):
        done.model()(images)


def test_pixels_may_be_any_array_of_bytes_and_what_is_none_is_said(done: fl.Run) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    for view in (images[:, :, ::-1], images[..., ::-1]):  # mirrored; channels as OpenCV has them
        assert torch.equal(done.model()(view), done.model()(view.copy()))
    images.flags.writeable = False
    assert torch.equal(done.model()(images), done.model()(images.copy()))
    for odd in (None, "image.png", [None], images.astype(str), images.astype(object)):
        with pytest.raises(fl.DataError, match=r"\(N, H, W, 3\)"):
            done.model()(odd)


@pytest.mark.parametrize("camera", [1.0, True, "1", -1, 4])
def test_what_is_no_camera_of_the_fleet_is_refused(done: fl.Run, camera: object) -> None:
    for ask in (done.model, done.adapter):
        with pytest.raises(fl.ConfigError, match=rf"cameras are 0 to 3; got {camera!r}"):
            ask(camera)  # type: ignore[arg-type]
    assert torch.equal(*(done.model(one).deployed.network.bn1.running_mean for one in (1, np.int64(1))))  # type: ignore


def test_base_and_adapter_make_its_network(done: fl.Run) -> None:
    adapter, model = done.adapter(camera=2), build_experiment(done.config).base.model
    assert adapter.metadata["method"] == "lora-c"
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        fold(model, adapter.tensors)
        for name, tensor in done.model(2).deployed.network.state_dict().items():
            if tensor.is_floating_point():
                torch.testing.assert_close(model.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)
    finally:
        model.load_state_dict(before)


def test_it_says_of_itself_what_it_found(done: fl.Run) -> None:
    text, html = repr(done), done._repr_html_()
    for word in (str(done.path), "lora-c r=2", "2 rounds on digits", "zero-byte", "bytes"):
        assert word in text
    assert html and "fleet mean" in html and "full fine-tuning" in html and "\x1b" not in html


def test_settings_come_as_tables_as_keys_and_as_python_values(done: fl.Run) -> None:
    nested = {"run": {"rounds": 7}, "fleet": {"corruptions": ["fog", "snow"], "severities": (3, 4)}}
    found = fl.load_config(nested, {"local.lr": np.float32(0.5), "cameras": np.int64(24)})
    assert found == fl.load_config(
        None,
        ["run.rounds=7", "fleet.corruptions=fog, snow", "fleet.severities=3, 4", "local.lr=0.5", "fleet.cameras=24"],
    )
    assert fl.load_config(found) == found == fl.load_config(found.to_flat())
    assert fl.load_config(found, "run.rounds=2").run.rounds == 2
    with pytest.raises(fl.ConfigError, match=r"Did you mean 'run\.rounds'"):
        fl.run({"run": {"round": 1}})
    with pytest.raises(fl.ConfigError, match="a name, a path, a mapping or a Config; got 5"):
        fl.load_config(5)  # type: ignore[arg-type]
    for overrides in (5, [("run.rounds", 3)], None):
        with pytest.raises(fl.ConfigError, match="a mapping or key=value texts"):
            fl.load_config(None, overrides)  # type: ignore[arg-type]
    with pytest.raises(fl.ConfigError, match="given once"):
        fl.load_config({"run.rounds": 1, "run": {"rounds": 1}})


def test_a_run_goes_on_in_its_folder_as_if_never_ended(done: fl.Run, tmp_path: Path) -> None:
    long = {**TINY, "run.rounds": 3, "local.schedule": "constant"}
    whole = fl.run(long, out=tmp_path / "whole", progress=False)
    half = fl.run(long, {"run.rounds": 1}, out=tmp_path / "half", progress=False)
    on = fl.run(resume=half, overrides={"run.rounds": 3}, progress=False)
    assert on == half and len(on.rounds) == 3
    assert on.rounds.drop(columns="seconds").equals(whole.rounds.drop(columns="seconds"))
    with pytest.raises(fl.ConfigError, match="own folder"):
        fl.run(resume=half.path, out=tmp_path / "other")
    with pytest.raises(fl.RunError, match=r"config\.toml"):
        fl.run(resume=tmp_path / "nothing")


def test_a_folder_may_lie_in_the_home_folder(done: fl.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(done.path.parent))
    with prepare(resume="~/run") as start:
        assert start.folder == done.path and start.config == done.config
    with prepare(done.config, out="~/other") as start:
        assert start.folder == done.path.parent / "other"


def test_a_run_makes_way_only_where_that_is_asked_for(tmp_path: Path) -> None:
    first = fl.run(TINY, {"run.rounds": 1}, out=tmp_path / "run", progress=False)
    (first.path / "notes.txt").write_text("mine")
    with pytest.raises(fl.RunError, match="already holds one"):
        fl.run(TINY, out=first.path)
    second = fl.run(TINY, {"run.seed": 1, "run.rounds": 1}, out=first.path, overwrite=True, progress=False)
    assert second.config.run.seed == second.summary["seed"] == 1 and len(second.rounds) == 1
    assert (first.path / "notes.txt").read_text() == "mine"


def test_what_was_killed_before_it_measured_makes_way_too_and_a_config_of_ones_own_stays(tmp_path: Path) -> None:
    first, other = (tiny(run__seed=seed) for seed in (0, 1))
    (tmp_path / "config.toml").write_text(first.to_toml(), encoding="utf-8")
    with pytest.raises(KeyboardInterrupt), RunFolder.owned(tmp_path, first):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]
    with pytest.raises(fl.RunError, match=r"differs\. Choose another --out\.$"):
        check_new(tmp_path, other, overwrite=True)
    (tmp_path / "rounds.jsonl").touch()  # as SIGKILL leaves it
    with pytest.raises(fl.RunError, match="or give --overwrite"):
        check_new(tmp_path, other)
    check_new(tmp_path, other, overwrite=True)
    with RunFolder.owned(tmp_path, other, overwrite=True):
        assert (tmp_path / "config.toml").read_text(encoding="utf-8") == other.to_toml()


def test_what_is_no_run_or_not_done_is_said(done: fl.Run, tmp_path: Path) -> None:
    with pytest.raises(fl.RunError, match="is not there"):
        fl.load_run(tmp_path / "nothing")
    with pytest.raises(fl.RunError, match=r"config\.toml"):
        fl.load_run(tmp_path)
    with pytest.raises(fl.RunError, match="is not there") as said:  # and no advice to go on with it
        fl.Run(tmp_path / "nothing").summary  # noqa: B018
    assert "resume" not in str(said.value)
    for name in ("config.toml", "rounds.jsonl", "cameras.jsonl"):
        (tmp_path / name).write_bytes((done.path / name).read_bytes())
    half = fl.load_run(tmp_path)
    assert len(half.rounds) == 2 and "not finished" in repr(half) and half._repr_html_() is None
    asked: list[Callable[[], object]] = [lambda: half.summary, half.model, half.adapter]
    for ask in asked:
        with pytest.raises(fl.RunError, match=r"finished run.*resume="):
            ask()
    with pytest.raises(fl.ConfigError, match="cameras are 0 to 3"):
        done.model(camera=4)


def test_this_process_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, root, living = torch.get_num_threads(), logging.getLogger(), threading.active_count()
    before, drawn = (root.level, list(root.handlers)), torch.random.get_rng_state()
    monkeypatch.delenv("FLWR_TELEMETRY_ENABLED")
    surroundings = dict(os.environ)
    torch.set_num_threads(2)
    try:
        fl.run(TINY, {"run.rounds": 1}, out=tmp_path / "run", progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert dict(os.environ) == surroundings
    assert (root.level, list(root.handlers)) == before and threading.active_count() == living
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_ctrl_c_keeps_what_was_done_and_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: Watch, row: object, of: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "round", stop)
    with pytest.raises(KeyboardInterrupt) as raised:
        fl.run(TINY, out=tmp_path / "run", progress=False)
    assert f"resume={str(tmp_path / 'run')!r}" in raised.value.__notes__[0]
    half = fl.load_run(tmp_path / "run")
    assert half.summary["interrupted"] and len(half.rounds) == 1 and "1 round, interrupted" in repr(half)


def test_progress_is_shown_on_standard_error_or_not_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fl.run(TINY, {"run.rounds": 1}, out=tmp_path / "quiet", progress=False)
    assert capsys.readouterr() == ("", "")
    fl.run(TINY, {"run.rounds": 1}, out=tmp_path / "run")
    said = capsys.readouterr()
    assert said.out == "" and "round 1/1" in said.err


def test_runs_are_compared_as_by_the_command(
    done: fl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = fl.run(TINY, {"run.seed": 1}, out=tmp_path / "other", progress=False)
    monkeypatch.setattr(sys, "argv", ["fed-lorac", "compare", str(done.path), str(other.path), "--target", "0.1"])
    with pytest.raises(SystemExit):
        cli.main()
    assert fl.compare([done, str(other.path)], target=0.1) + "\n" == capsys.readouterr().out


def test_methods_are_listed_by_kind() -> None:
    found = fl.methods()
    assert {"adapters", "strategies", "codecs", "links"} <= set(found)
    assert "lora-c" in {entry["name"] for entry in found["adapters"]}


def test_a_frame_is_the_same_from_every_door() -> None:
    state = {"a.weight": torch.arange(6.0).view(2, 3)}
    frame = fl.encode(state, dtype="fp16", base="base")
    assert torch.equal(fl.decode(frame, base="base")["a.weight"], state["a.weight"])
    with pytest.raises(fl.FrameError):
        fl.decode(frame, base="another")


@pytest.mark.slow
def test_a_ray_that_a_run_started_is_gone_after_it(
    done: fl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run = fl.run(TINY, {"run.workers": 2}, out=tmp_path / "run", progress=False)
    assert not ray.is_initialized()
    assert run.rounds.drop(columns="seconds").equals(done.rounds.drop(columns="seconds"))
