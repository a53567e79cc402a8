"""Laws of what names a cache entry: the code that made it. Other code never finds it, nor leaves one under its name."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from killed import SERVER
from small_runs import ROOT, environment, tiny

from fed_lorac.data import corruptions
from fed_lorac.data.corruptions import CORRUPTIONS, _geometry, corruption_fingerprint, weather
from fed_lorac.data.datasets import load
from fed_lorac.data.store import cache_folder
from fed_lorac.experiment.build import build_experiment
from fed_lorac.fleet.camera_data import camera_data
from fed_lorac.fleet.fleet import Weather
from fed_lorac.runtime.source import source_of
from fed_lorac.seeds import stream

FOG = Weather("fog", 3)


def foggy() -> torch.Tensor:
    experiment = build_experiment(tiny())
    return camera_data(experiment.data, experiment.fleet.cameras[0], 0, FOG).test


def entries() -> set[str]:
    return {path.parent.name for path in cache_folder().glob("*/entry.json")}


def negative(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    return 255 - images


def test_a_replaced_corruption_is_seen_at_once_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before, kept = foggy(), entries()
    monkeypatch.setitem(CORRUPTIONS, "fog", negative)
    experiment = build_experiment(tiny())
    camera = experiment.fleet.cameras[0]
    clean = torch.from_numpy(experiment.data.clean(camera.evaluation))
    assert torch.equal(foggy(), 255 - clean)
    assert entries() == kept
    monkeypatch.undo()
    assert torch.equal(foggy(), before)


def test_an_experiment_keeps_what_its_cameras_saw_unless_somebody_replaced_what_made_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny(fleet__corruptions="fog,snow")
    kept = build_experiment(config)
    before = kept.images(0, FOG)
    assert kept.images(0, FOG) is before and torch.equal(before.test, foggy())
    monkeypatch.setitem(CORRUPTIONS, "fog", negative)
    experiment = build_experiment(config)
    clean = kept.clear_images(0)
    assert clean is not None and torch.equal(experiment.images(0, FOG).test, 255 - clean.test)
    monkeypatch.setitem(CORRUPTIONS, "fog", lambda images, severity, rng: images)
    assert torch.equal(build_experiment(config).images(0, FOG).test, clean.test)


def test_of_what_cameras_saw_as_much_is_kept_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = build_experiment(tiny(fleet__corruptions="fog,snow", run__seed=3))
    views = [experiment.images(camera, FOG) for camera in (0, 1)]
    assert experiment.images(0, FOG) is views[0]
    room = views[0].train.nbytes + views[0].test.nbytes  # for one camera
    monkeypatch.setattr("fed_lorac.experiment.experiment.KEPT_BYTES", room)
    experiment.images(2, FOG)
    again = experiment.images(1, FOG)
    assert again is not views[1] and torch.equal(again.train, views[1].train)


PATCHES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "a constant": lambda patch: patch.setattr(weather, "_FOG", ((3.0, 3.0),) * 5),
    "a helper": lambda patch: patch.setattr(weather, "plasma", lambda batch, size, decay, rng: np.zeros(1)),
    "another room's helper": lambda patch: patch.setattr(_geometry, "blur", None),
    "the door itself": lambda patch: patch.setattr(corruptions, "corrupt", lambda images, *rest: images),
    "a swap of two": lambda patch: patch.setitem(CORRUPTIONS, "fog", CORRUPTIONS["snow"]),
}


@pytest.mark.parametrize("what", PATCHES)
def test_where_a_part_has_been_replaced_nothing_is_kept(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = corruption_fingerprint("fog")
    PATCHES[what](monkeypatch)
    assert corruption_fingerprint("fog") is None
    monkeypatch.undo()
    assert corruption_fingerprint("fog") == before is not None


def test_a_replaced_corruption_does_not_touch_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    before = corruption_fingerprint("snow")
    monkeypatch.setitem(CORRUPTIONS, "fog", negative)
    assert corruption_fingerprint("snow") == before
    monkeypatch.setitem(CORRUPTIONS, "drizzle", negative)
    assert corruption_fingerprint("drizzle") is None


def test_frosts_cache_key_depends_on_its_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    fog, frost = corruption_fingerprint("fog"), corruption_fingerprint("frost")
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    assert corruption_fingerprint("fog") == fog
    assert corruption_fingerprint("frost") == f"{fog}, textures stand-in"
    assert frost is not None and fog is not None and frost.startswith(fog)


def see_fog(told: Path, *, patched: bool = False) -> None:
    """Write down what fog this process sees, which must be what its own function makes."""
    if patched:
        CORRUPTIONS["fog"] = negative
    experiment = build_experiment(tiny())
    camera = experiment.fleet.cameras[0]
    clean = experiment.data.clean(camera.evaluation)
    seen = foggy().numpy()
    np.testing.assert_array_equal(seen, corruptions.corrupt(clean, "fog", 3, stream(0, "weather", camera.id, "test")))
    told.write_text(hashlib.sha256(seen.tobytes()).hexdigest())


def test_processes_with_other_functions_or_other_source_share_a_cache_without_harm(tmp_path: Path) -> None:
    foggy()  # the shared cache has the shipped fog already
    told = [tmp_path / name for name in ("patched", "plain", "newer", "patched again")]
    for file in (told[0], told[1], told[3]):
        child = SERVER.Process(target=see_fog, args=(file,), kwargs={"patched": "patched" in file.name})
        child.start()
        child.join()
        assert child.exitcode == 0
    for package in ("fed_lorac", "strategies", "sim_configs"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    room = tmp_path / "fed_lorac" / "data" / "corruptions" / "weather.py"
    room.write_text(room.read_text(encoding="utf-8").replace("(0.75, 2.5)", "(0.8, 2.5)"), encoding="utf-8")
    script = f"from pathlib import Path; from test_cache_keys import see_fog; see_fog(Path({str(told[2])!r}))"
    folders = [tmp_path, ROOT / "tests/unit", ROOT / "tests/helpers"]
    around = environment(PYTHONPATH=":".join(map(str, folders)))
    subprocess.run([sys.executable, "-c", script], env=around, cwd=tmp_path, check=True)
    seen = [file.read_text() for file in told]
    assert len(set(seen[:3])) == 3 and seen[3] == seen[0]


def test_a_hash_of_source_is_the_same_in_every_process_and_another_for_other_code() -> None:
    names = ("fed_lorac.data.decode", "fed_lorac.seeds")
    script = f"from fed_lorac.runtime.source import source_of; print(source_of(*{names}))"
    command = [sys.executable, "-c", script]
    told = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout.strip()
    assert told == source_of(*names)
    assert len({source_of(*names), source_of(names[0]), source_of(names[1]), source_of(*names[::-1])}) == 4
    with pytest.raises(ModuleNotFoundError):
        source_of("fed_lorac.no_such_room")


def test_every_entry_of_a_run_says_what_it_is_and_names_the_code_that_made_it(tmp_path: Path) -> None:
    cached = tmp_path / "cache"
    load("digits", cache_dir=cached)
    foggy()
    notes = [*cached.glob("*/entry.json"), *cache_folder().glob("*/entry.json")]
    for note in notes:
        key = json.loads(note.read_text(encoding="utf-8"))["key"]
        assert re.search(r"\b[0-9a-f]{16}$", key), key
        known = ("images of ", "weather over ", "assignments of images ", "fingerprint of ", "scores of a base on ")
        assert key.startswith(known), key
    assert len(notes) > 2


def test_weather_on_file_is_not_kept_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.tile(np.arange(40) % 10, 5)
    np.save(tmp_path / "labels.npy", labels)
    fog = stream(0, "fog").integers(0, 256, (200, 32, 32, 3), np.uint8)
    np.save(tmp_path / "fog.npy", fog)
    monkeypatch.setenv("FED_LORAC_DATA", str(tmp_path))
    small = {"fleet__cameras": 1, "fleet__per_round": 1, "fleet__images": 5, "fleet__eval_images": 5}
    experiment = build_experiment(tiny(data__name="cifar10c", fleet__corruptions="fog", **small))
    kept, camera = entries(), experiment.fleet.cameras[0]
    view = camera_data(experiment.data, camera, 0, FOG)
    np.testing.assert_array_equal(view.test, fog[80 + camera.evaluation])
    assert entries() == kept
