"""A run taken to the device: every format computes what the merged network computes, at the plain network's cost."""

import copy
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from command_line import called
from safetensors import safe_open
from safetensors.torch import load_file
from small_runs import ROOT, tiny, words
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fed_lorac.adapters.fold_bn import fold_batch_norm
from fed_lorac.api.result import load_run
from fed_lorac.config import CifarResNet, Config, load_config
from fed_lorac.errors import ConfigError, DataError, FactorError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.export import export_run, load_adapter, load_network
from fed_lorac.export.deployed import Deployed
from fed_lorac.export.formats import FORMATS, METADATA_FILE, OPSET, OPSETS
from fed_lorac.fleet.camera_data import camera_data
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.tensor_files import write_tensors
from fed_lorac.simulation.engines import run
from fed_lorac.training.accuracy import accuracy
from fed_lorac.training.batches import to_input

BIG: dict[str, object] = {"model__name": "resnet18", "width": None, "run__rounds": 1, "local__batch_size": 10}
SMALL_FLEET: dict[str, object] = {
    "fleet__cameras": 2,
    "fleet__per_round": 2,
    "fleet__images": 10,
    "fleet__eval_images": 10,
}
RUNS: dict[str, dict[str, object]] = {
    "batch": {},
    "group": {"norm": "group", "run__rounds": 1},
    "identity": {"shortcut": "identity", "run__rounds": 1},
    "resnet18": BIG | SMALL_FLEET,
}
NETWORKS = tuple(FORMATS)


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name in RUNS -> the finished run's folder."""
    return cache(lambda name: finished(tmp_path_factory.mktemp(name) / "run", **RUNS[name]))


EACH = [pytest.param(name, marks=pytest.mark.slow) if name == "resnet18" else name for name in RUNS]


@pytest.fixture(scope="module", params=EACH)
def done(request: pytest.FixtureRequest, run_of: Callable[[str], Path]) -> Path:
    """A finished run of each kind of network."""
    return run_of(request.param)


@pytest.fixture(scope="module")
def batch(run_of: Callable[[str], Path]) -> Path:
    """A finished run of the network with batch norm."""
    return run_of("batch")


def finished(folder: Path, **changes: object) -> Path:
    run(tiny(**changes), folder, Watch())
    return folder


def config_of(folder: Path) -> Config:
    return load_config(folder / "config.toml")


def by_hand(folder: Path, camera: int | None) -> nn.Module:
    """The merged network put together without the export's own code."""
    model = build_experiment(config_of(folder)).base.model
    before = {name: t.clone() for name, t in model.state_dict().items()}
    tensors = load_file(folder / "model.safetensors")
    if camera is not None:
        own = load_file(folder / "cameras.safetensors")
        tensors |= {k.partition(".")[2]: v for k, v in own.items() if k.startswith(f"camera-{camera}.")}
    model.load_state_dict(tensors)
    twin = copy.deepcopy(model).eval()
    model.load_state_dict(before)
    return twin


@cache
def exported(folder: Path, kind: str, camera: int | None) -> Path:
    """The run's file of that kind, written once: ONNX takes seconds."""
    return export_run(folder, kind, camera=camera).path


def photos(count: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 32, 32, 3), generator=draw, dtype=torch.uint8)


def pixels(images: Tensor) -> Tensor:
    """What a device hands in: the stored bytes as float32, channels first."""
    return images.permute(0, 3, 1, 2).float().contiguous()


def answers(path: Path, images: Tensor) -> Tensor:
    """The exported file's logits, by the runtime that reads it."""
    x = pixels(images)
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return torch.from_numpy(np.asarray(session.run(None, {"images": x.numpy()})[0]))
    with torch.no_grad():
        found: Tensor = torch.jit.load(path)(x) if path.suffix == ".pt" else load_network(path)(x)
    return found


def metadata(path: Path) -> Mapping[str, str]:
    if path.suffix == ".onnx":
        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    if path.suffix == ".pt":
        files = {METADATA_FILE: ""}
        torch.jit.load(path, _extra_files=files)
        told: Mapping[str, str] = json.loads(files[METADATA_FILE])
        return told
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is deprecated")
@pytest.mark.parametrize(("kind", "camera"), [*((kind, 1) for kind in NETWORKS), ("safetensors", None)])
def test_every_format_answers_as_the_merged_network_does(done: Path, kind: str, camera: int | None) -> None:
    path = exported(done, kind, camera)
    wanted = by_hand(done, camera)
    for count in (1, 2, 5):  # the batch is free
        images = photos(count, seed=count)
        with torch.no_grad():
            torch.testing.assert_close(answers(path, images), wanted(to_input(images)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_left_unfolded_it_answers_the_same(batch: Path, kind: str, tmp_path: Path) -> None:
    written = export_run(batch, kind, camera=0, fold=False, out=tmp_path / f"x{FORMATS[kind].suffix}")
    assert written.metadata["batch_norm"] == "kept"
    images = photos(3)
    with torch.no_grad():
        torch.testing.assert_close(
            answers(written.path, images), by_hand(batch, 0)(to_input(images)), atol=1e-4, rtol=1e-4
        )


ENDS = (OPSETS[0], OPSETS[-1])
IN_OPSET = [("batch", opset, True) for opset in ENDS]
IN_OPSET_TOO = [
    *((name, opset, True) for name in RUNS if name != "batch" for opset in ENDS),
    *(("batch", opset, False) for opset in OPSETS),
]


@pytest.mark.parametrize(
    ("name", "opset", "fold"), [*IN_OPSET, *(pytest.param(*case, marks=pytest.mark.slow) for case in IN_OPSET_TOO)]
)
def test_onnx_is_written_in_the_opset_that_is_asked_for(
    run_of: Callable[[str], Path], name: str, opset: int, fold: bool, tmp_path: Path
) -> None:
    run = run_of(name)
    written = export_run(run, "onnx", camera=1, out=tmp_path / "x.onnx", fold=fold, opset=opset)
    assert written.metadata["opset"] == metadata(written.path)["opset"] == str(opset)
    model = onnx.load(written.path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    onnx.checker.check_model(model, full_check=True)
    with torch.no_grad():
        wanted = by_hand(run, 1)(to_input(photos(3)))
    torch.testing.assert_close(answers(written.path, photos(3)), wanted, atol=1e-4, rtol=1e-4)


def test_without_an_opset_it_is_the_exporters_own(batch: Path, tmp_path: Path) -> None:
    chosen = export_run(batch, "onnx", camera=1, out=tmp_path / "x.onnx", opset=OPSET).path
    assert chosen.read_bytes() == exported(batch, "onnx", 1).read_bytes()
    assert [entry.version for entry in onnx.load(chosen).opset_import] == [OPSET]


def test_normalisation_inside_is_that_of_training_bit_for_bit() -> None:
    deployed, images = Deployed(nn.Identity(), "none"), photos(4)
    assert torch.equal(deployed(pixels(images)), to_input(images).contiguous())


def operations(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def flops(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(2, 3, 32, 32))
    return int(counter.get_total_flops())


def test_the_exported_network_has_the_plain_networks_operations(done: Path) -> None:
    base = build_experiment(config_of(done)).base.model
    folded = fold_batch_norm(base)
    layers = Counter(type(module) for module in base.modules())
    found = operations(exported(done, "onnx", 1))
    assert (found["Conv"], found["Gemm"] + found["MatMul"]) == (layers[nn.Conv2d], layers[nn.Linear])
    assert "BatchNormalization" not in found
    assert flops(load_network(exported(done, "safetensors", 1))) == flops(folded)


def test_its_onnx_graph_is_that_of_the_plain_network_node_for_node(batch: Path) -> None:
    base = build_experiment(config_of(batch)).base.model
    plain = batch / "plain.onnx"
    plain.write_bytes(FORMATS["onnx"].encode(Deployed.of(base, fold=True), 32, {}))
    graphs = [onnx.load(path).graph.node for path in (plain, exported(batch, "onnx", 1))]
    # Names of weights aside: of equal ones, such as biases of zeros, the exporter keeps one.
    both = [[(node.op_type, list(node.attribute), list(node.output)) for node in nodes] for nodes in graphs]
    assert both[0] == both[1]


def test_the_exported_file_scores_what_the_run_measured(batch: Path) -> None:
    summary = json.loads((batch / "summary.json").read_text())
    experiment, scores = build_experiment(config_of(batch)), []
    for camera in experiment.fleet.cameras:
        network = load_network(export_run(batch, "safetensors", camera=camera.id).path).network
        view = camera_data(experiment.data, camera, 0)
        scores.append(accuracy(network, view.test, view.test_labels))
    assert summary["adapted_accuracy"] == pytest.approx(sum(scores) / len(scores), abs=1e-9)


@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_every_format_says_the_same_of_itself(done: Path) -> None:
    told = [dict(metadata(exported(done, kind, 1))) for kind in NETWORKS]
    assert [one.pop("opset", None) for one in told] == [None, str(OPSET), None]
    words = dict(zip(NETWORKS, [one.pop("input_words") for one in told], strict=True))
    assert {kind for kind in NETWORKS if "normalization is inside" in words[kind]} == {"onnx", "torchscript"}
    assert "load_network" in words["safetensors"]
    assert told[0] == told[1] == told[2]
    said, config = told[0], config_of(done)
    experiment = build_experiment(config)
    assert json.loads(said["classes"]) == list(experiment.data.classes)
    assert (said["base"], said["data_fingerprint"]) == (experiment.base.fingerprint, experiment.data.fingerprint)
    group = config.model.table(CifarResNet).norm == "group"
    assert said["statistics"] == ("base" if group else "camera 1")
    assert said["batch_norm"] == ("none" if group else "folded")
    assert said["folded_round"] == str(config.run.rounds)
    assert said["input_resize"].startswith("squeeze the whole image to 32 x 32")
    mean, std = (np.array(json.loads(said[f"input_{what}"]))[:, None, None] for what in ("mean", "std"))
    x = photos(1)
    np.testing.assert_allclose((pixels(x).numpy() - mean) / std, to_input(x).numpy(), atol=1e-6)


def test_an_onnx_file_is_valid_and_names_no_path_of_this_machine(done: Path) -> None:
    path = exported(done, "onnx", 1)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    for place in (ROOT, Path(torch.__file__).parent, done):
        assert str(place).encode() not in path.read_bytes()


@pytest.mark.parametrize("kind", ["onnx", "safetensors", "adapter"])
def test_the_same_run_gives_the_same_bytes(batch: Path, kind: str, tmp_path: Path) -> None:
    first = exported(batch, kind, 1)
    again = export_run(batch, kind, camera=1, out=tmp_path / f"again{first.suffix}").path
    assert first.read_bytes() == again.read_bytes()


def test_cameras_differ_by_their_statistics_and_share_a_run(batch: Path) -> None:
    said, found = [], []
    for camera in (None, 0, 1):
        written = export_run(batch, "safetensors", camera=camera)
        said.append(written.metadata)
        found.append(answers(written.path, photos(2)))
    assert not torch.allclose(found[0], found[1]) and not torch.allclose(found[1], found[2])
    assert len({told["run"] for told in said}) == 1
    assert [told["statistics"] for told in said] == ["base", "camera 0", "camera 1"]


def test_a_run_that_did_not_write_its_classes_down_asks_its_data(batch: Path, tmp_path: Path) -> None:
    folder = tmp_path / "older"
    shutil.copytree(batch, folder, ignore=shutil.ignore_patterns("exported*", "checkpoints"))
    said = dict(metadata(batch / "model.safetensors"))
    write_tensors(folder / "model.safetensors", load_file(batch / "model.safetensors"), said | {"classes": ""})
    assert export_run(folder, "safetensors").metadata["classes"] == said["classes"]


@pytest.mark.parametrize("camera", [None, 1])
def test_base_and_adapter_make_the_merged_network(done: Path, camera: int | None) -> None:
    assert adapter_and_base_agree(done, camera)["method"] == "lora-c"


def adapter_and_base_agree(folder: Path, camera: int | None) -> Mapping[str, str]:
    """Load the exported adapter onto the base and compare every number with the merged network's."""
    model = copy.deepcopy(build_experiment(config_of(folder)).base.model)
    said = load_adapter(model, exported(folder, "adapter", camera))
    wanted = by_hand(folder, camera).state_dict()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, wanted[name], atol=1e-6, rtol=1e-5)
    return said


def test_an_adapter_refuses_every_other_base_and_alters_nothing(batch: Path) -> None:
    path = export_run(batch, "adapter").path
    model = copy.deepcopy(build_experiment(config_of(batch)).base.model)
    load_adapter(model, path)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(FactorError, match="fits the base that it was trained on"):
        load_adapter(model, path)  # it is no longer the base
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_folder_and_a_file_are_named_by_text_or_path_and_a_run_stands_for_its_folder(
    batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").symlink_to(batch)
    wanted = export_run(batch, "adapter", camera=1, out=tmp_path / "a.safetensors").path.read_bytes()
    for place, out in (("~/run", "~/b.safetensors"), (load_run(batch), str(tmp_path / "c.safetensors"))):
        written = export_run(place, "adapter", camera=1, out=out).path
        assert written.parent == tmp_path and written.read_bytes() == wanted
        model = copy.deepcopy(build_experiment(config_of(batch)).base.model)
        assert load_adapter(model, out)["statistics"] == "camera 1"
    assert load_network(str(exported(batch, "safetensors", None))).batch_norm == "folded"


def test_each_loader_refuses_the_others_files(batch: Path) -> None:
    model = build_experiment(config_of(batch)).base.model
    with pytest.raises(DataError, match="not one"):
        load_adapter(model, exported(batch, "safetensors", None))
    with pytest.raises(DataError, match="is not"):
        load_network(export_run(batch, "adapter").path)
    with pytest.raises(DataError, match="not there"):
        load_adapter(model, batch / "nothing.safetensors")


def test_other_methods_and_shared_or_frozen_statistics_are_exported_too(tmp_path: Path) -> None:
    kinds: dict[str, dict[str, object]] = {
        "full": {"adapter__method": "full", "strategy__name": "fedavg", "batch_norm__mode": "shared"},
        "frozen": {"batch_norm__mode": "frozen", "strategy__name": "factor-fedavg"},
    }
    for name, changes in kinds.items():
        folder = finished(tmp_path / name, run__rounds=1, **changes)
        written = export_run(folder, "safetensors", camera=1)
        assert written.metadata["statistics"] == "base"  # where a camera has none of its own
        with torch.no_grad():
            wanted = by_hand(folder, None)(to_input(photos(2)))
        torch.testing.assert_close(answers(written.path, photos(2)), wanted, atol=1e-4, rtol=1e-4)
        adapter_and_base_agree(folder, None)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--format", "onnx", "--camera", "4"], 2, "cameras are 0 to 3"),
        (["--format", "onnx", "--camera", "-1"], 2, "cameras are 0 to 3"),
        (["--format", "onnx", "--opset", "17"], 2, "18 to 25; got opset 17"),
        (["--format", "onnx", "--opset", "26"], 2, "18 to 25; got opset 26"),
        (["--format", "torchscript", "--opset", "18"], 2, "Only ONNX has an opset"),
        (["--format", "adapter", "--opset", "20"], 2, "Only ONNX has an opset"),
        (["--format", "tflite"], 2, "safetensors, onnx, torchscript, adapter"),
        (["--format", "onnx", "--out", "network.pt"], 2, "ends in .onnx"),
        (["--format", "safetensors", "--out", "{run}/model.safetensors"], 2, "leaves a run's own files alone"),
        (["--format", "adapter", "--out", "{run}/config.toml/a.safetensors"], 1, "a part of this one is a file"),
    ],
)
def test_what_cannot_be_exported_is_said(
    batch: Path,
    arguments: list[str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = [word.replace("{run}", str(batch)) for word in arguments]
    assert called(monkeypatch, "export", str(batch), *asked) == code
    shown = capsys.readouterr().err
    assert said in shown and "Traceback" not in shown


def test_an_export_leaves_another_runs_files_alone_too(batch: Path, tmp_path: Path) -> None:
    for name in ("config.toml", "model.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match="leaves a run's own files alone"):
        export_run(batch, "safetensors", out=tmp_path / "model.safetensors", overwrite=True)
    assert not (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "config.toml").unlink()  # in a folder of no run the name is anyone's
    assert export_run(batch, "safetensors", out=tmp_path / "model.safetensors", overwrite=True).file_bytes


def test_an_export_that_fails_leaves_nothing(batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cameras are 0 to 3"):
        export_run(batch, "safetensors", out=tmp_path / "new" / "x.safetensors", camera=99)
    monkeypatch.setattr("fed_lorac.export.network_of", None)
    with pytest.raises(TypeError):
        export_run(batch, "safetensors", out=tmp_path / "new" / "er" / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_not_finished_is_not_exported(
    batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").write_bytes((batch / "config.toml").read_bytes())
    assert called(monkeypatch, "export", str(tmp_path), "--format", "safetensors") == 1
    assert "--resume" in capsys.readouterr().err


def test_without_the_extra_onnx_says_what_to_install_and_the_rest_works(
    batch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as Python marks what cannot be imported
    assert called(monkeypatch, "export", str(batch), "--format", "onnx") == 1
    assert "fed-lorac[export]" in capsys.readouterr().err
    assert called(monkeypatch, "export", str(batch), "--format", "torchscript") == 0


def test_the_command_writes_the_file_and_says_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [part for word in words(run__rounds=1) for part in ("-c", word)]
    assert called(monkeypatch, "run", *settings, "--out", str(tmp_path / "run")) == 0
    capsys.readouterr()
    place = tmp_path / "new [export]" / "camera.onnx"  # brackets are no markup
    asked = ["export", str(tmp_path / "run"), "--format", "onnx", "--camera", "2", "--out", str(place)]
    assert called(monkeypatch, *asked) == 0
    shown: Any = capsys.readouterr().out
    assert str(place) in shown and "camera 2" in shown and "0 to 255" in shown
    assert list(place.parent.iterdir()) == [place]
