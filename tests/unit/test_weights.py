"""Weight files as people have them: the same network however it is wrapped, or an error before anything is loaded."""

import argparse
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save, save_file
from torch import Tensor, nn

from fed_lorac.config import load_config
from fed_lorac.errors import DataError
from fed_lorac.experiment.base_model import load_base_model
from fed_lorac.experiment.build import open_data
from fed_lorac.models import build
from fed_lorac.models.fitting import classifier_tensors
from fed_lorac.models.weights import Checkpoint, imagenet, load_into, read_checkpoint
from fed_lorac.seeds import torch_stream
from fed_lorac.training.accuracy import accuracy

State = dict[str, Tensor]

WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "parameters": lambda state: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in state.items()},
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "model": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, tags=["a"]), "best": np.float64(0.9)},
    "net": lambda state: {"net": state, "acc": 93.1, "history": np.zeros(3)},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer": {"state": {0: {"step": 1}}}},
    "two deep": lambda state: {"checkpoint": {"model": state}},
    "beside another": lambda state: {"ema": {"decay": torch.ones(1)}, "weights": state},
}
PREFIXES = ("", "module.", "_orig_mod.", "model.", "module._orig_mod.", "net.backbone.", "student.")


def network(seed: int = 1) -> Any:
    """A small network whose numbers half precision holds exactly."""
    model = build("resnet8", width=4, generator=torch_stream(seed, "weights"))
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            values = torch.randint(-64, 64, tensor.shape, generator=draw) / 64
            tensor.copy_(values.abs() if name.endswith("running_var") else values)
    return model


def equal(one: nn.Module, other: nn.Module) -> bool:
    both = (one.state_dict(), other.state_dict())
    return all(torch.equal(both[0][name], both[1][name]) for name in both[0])


def cast(state: State, dtype: torch.dtype) -> State:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def loaded(path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """A fresh network with the file's weights, and what is said of them."""
    model = network(2)
    checkpoint = read_checkpoint(path, model.state_dict())
    return model, (*checkpoint.notes, *load_into(model, checkpoint, path.name))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_however_it_is_wrapped_the_loaded_network_is_the_plain_one(
    wrapping: str, prefix: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = network()
    state = cast({prefix + name: tensor for name, tensor in model.state_dict().items()}, dtype)
    torch.save(WRAPPINGS[wrapping](state), tmp_path / "weights.bin")
    found, notes = loaded(tmp_path / "weights.bin")
    assert equal(found, model)
    said = " ".join(notes)
    assert ("stripped" in said) == bool(prefix) and ("taken from" in said) == (wrapping not in ("plain", "parameters"))
    assert ("converted to float32" in said) == (dtype is not torch.float32)


@pytest.mark.parametrize("name", ["model.pth", "model", "model.safetensors", "model.pth.tar"])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickle"])
def test_a_files_kind_is_seen_in_its_bytes_whatever_its_ending(name: str, kind: str, tmp_path: Path) -> None:
    model = network()
    if kind == "safetensors":
        (tmp_path / name).write_bytes(save(dict(model.state_dict()), {"data": "digits"}))
    else:
        torch.save(model.state_dict(), tmp_path / name, _use_new_zipfile_serialization=kind == "zip")
    found, notes = loaded(tmp_path / name)
    assert equal(found, model) and not notes


def test_onnx_whose_writer_is_not_told_is_known_by_its_ending(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x08\x07\x3a\xff" + b"\xff" * 20)
    with pytest.raises(DataError, match="is ONNX"):
        read_checkpoint(tmp_path / "net.onnx")


BESIDE: dict[str, Callable[[State], Any]] = {
    "classes": lambda state: {"state_dict": state, "classes": ["b", "a", "c"]},
    "class_names": lambda state: {"model": state, "class_names": ("b", "a", "c")},
    "class_to_idx": lambda state: {"net": state, "class_to_idx": {"a": 1, "c": 2, "b": 0}},
    "among the tensors": lambda state: {**state, "classes": ["b", "a", "c"]},
    "around a nested one": lambda state: {"checkpoint": {"model": state}, "classes": ["b", "a", "c"]},
    "nearest": lambda state: {"checkpoint": {"model": state, "classes": ["b", "a", "c"]}, "classes": ["x"]},
}


@pytest.mark.parametrize("way", BESIDE)
def test_classes_beside_a_state_dict_are_recorded_by_index(way: str, tmp_path: Path) -> None:
    torch.save(BESIDE[way](dict(STATE)), tmp_path / "m.pth")
    found = read_checkpoint(tmp_path / "m.pth", STATE)
    assert json.loads(found.metadata["classes"]) == ["b", "a", "c"] and set(found.tensors) == set(STATE)


@pytest.mark.parametrize(
    "said", [10, [], [1, 2], "b, a", None, {"a": 1, "b": 2}, {"a": 0, "b": 0}, {0: "a"}, {"a": {}}, torch.ones(2)]
)
def test_what_names_no_class_for_each_index_records_none(said: object, tmp_path: Path) -> None:
    torch.save({"state_dict": dict(STATE), "classes": said, "class_to_idx": said}, tmp_path / "m.pth")
    assert "classes" not in read_checkpoint(tmp_path / "m.pth", STATE).metadata


def test_safetensors_behind_a_prefix_are_taken_too_with_their_metadata(tmp_path: Path) -> None:
    model = network()
    save_file({f"module.{name}": t for name, t in model.state_dict().items()}, tmp_path / "m", {"data": "digits"})
    found, notes = loaded(tmp_path / "m")
    assert equal(found, model) and notes == ("prefix 'module.' stripped",)
    assert read_checkpoint(tmp_path / "m").metadata == {"data": "digits"}


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v3_small", "squeezenet1_1"])
def test_a_prefix_is_seen_though_the_file_has_no_classifier(name: str, tmp_path: Path) -> None:
    model = build(name)
    fresh = classifier_tensors(model)
    state = {key: tensor for key, tensor in model.state_dict().items() if key not in fresh}
    torch.save({f"module.{key}": tensor for key, tensor in state.items()}, tmp_path / "m")
    found = read_checkpoint(tmp_path / "m", model.state_dict())
    assert found.tensors.keys() == state.keys() and found.notes == ("prefix 'module.' stripped",)


def test_counters_of_batches_are_optional_and_never_in_the_way(tmp_path: Path) -> None:
    model = network()
    state = {name: t for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(state | {"bn1.num_batches_tracked": torch.ones(1)}, tmp_path / "m")
    assert equal(loaded(tmp_path / "m")[0], model)


def test_what_lies_beside_a_prefix_is_left_out_and_said(tmp_path: Path) -> None:
    model = network()
    state = {f"model.{name}": t for name, t in model.state_dict().items()} | {"criterion.weight": torch.ones(10)}
    torch.save({"state_dict": state, "pytorch-lightning_version": "2.5"}, tmp_path / "m.ckpt")
    found, notes = loaded(tmp_path / "m.ckpt")
    assert equal(found, model)
    assert notes[-1] == "left out: 1 tensors without that prefix (criterion.weight)"


def test_of_two_that_fit_the_usual_one_is_taken_and_the_other_named(tmp_path: Path) -> None:
    model, average = network(), network(3)
    torch.save({"ema": average.state_dict(), "model": model.state_dict()}, tmp_path / "m")
    found, notes = loaded(tmp_path / "m")
    assert equal(found, model)
    assert notes == ("taken from its key 'model'", "its key 'ema' would fit too, and was left")


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"teacher": state, "student": state},
        lambda state: {f"{who}.{name}": t for who in ("online", "target") for name, t in state.items()},
    ],
)
def test_of_two_that_fit_and_are_not_usual_none_is_taken(wrapped: Callable[[State], Any], tmp_path: Path) -> None:
    torch.save(wrapped(network().state_dict()), tmp_path / "m")
    with pytest.raises(DataError, match="fit alike"):
        loaded(tmp_path / "m")


def test_a_block_of_another_network_is_not_taken_for_the_network(tmp_path: Path) -> None:
    deeper = {f"stage.{name}": t for name, t in build("resnet14", width=4).layer2.state_dict().items()}  # type: ignore[union-attr]
    torch.save(deeper, tmp_path / "m")
    with pytest.raises(DataError, match=r"unknown: \d+ \(stage\.0\.conv1\.weight"):
        loaded(tmp_path / "m")


def damaged(flip: int) -> bytes:
    file = io.BytesIO()
    torch.save(network().state_dict(), file)
    data = bytearray(file.getvalue())
    data[len(data) // 2] ^= flip
    return bytes(data)


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, data in members.items():
            made.writestr(name, data)
    return file.getvalue()


def pickled(value: object, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **how)
    return file.getvalue()


STATE = network().state_dict()
OLD = {"_use_new_zipfile_serialization": False}
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12\n", "git lfs pull"),
    "web page": (b"\n<!DOCTYPE html><html><title>Sign in</title>", r"web page \('Sign in'\)"),
    "XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page"),
    "words": (b"Entry not found", "'Entry not found'"),
    "gzip": (gzip.compress(pickled(dict(STATE))), "gzip archive. Unpack"),
    "tar": (b"\0" * 257 + b"ustar\0" + b"\0" * 250, "tar archive"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "Keras"),
    "ONNX": (b"\x08\x07\x12\x07pytorch\x1a\x03" + b"\xff" * 20, r"is ONNX.* torch\.save\(model\.state_dict"),
    "another program's": (b"\x08\x01\x12\xff" + b"\xff" * 20, "begins with the bytes 08 01 12"),
    "one byte": (b"\x80", "Was it truncated"),
    "half a zip": (pickled(dict(STATE))[:5000], "Was it truncated"),
    "a bit flipped": (damaged(1), "Was it truncated"),
    "half a pickle": (pickled(dict(STATE), **OLD)[:5000], "Was it truncated"),
    "half a safetensors": (save(dict(STATE))[:5000], "Was it truncated"),
    "another zip": (archive(**{"model.pth": pickled(dict(STATE))}), "zip archive of model.pth"),
    "a whole network": (pickled(network()), "fed_lorac.models.cifar_resnet.CifarResNet"),
    "a whole network of old": (pickled(network(), **OLD), "whole Python objects"),
    "a list": (pickled([torch.ones(2)]), "holds a list"),
    "one tensor": (pickled(torch.ones(2)), "holds one tensor"),
    "no tensors": (pickled({"epoch": 3}), r"a dict without tensors \(keys 'epoch'\)"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_file_of_weights_is_refused_by_its_kind(kind: str, tmp_path: Path) -> None:
    data, said = FILES[kind]
    (tmp_path / "weights.pth").write_bytes(data)
    with pytest.raises(DataError, match=said) as raised:
        read_checkpoint(tmp_path / "weights.pth", STATE)
    text = str(raised.value)
    assert str(tmp_path / "weights.pth") in text
    assert not any(word in text for word in ("weights_only", "safe_globals", "trust", "\n", "\x1b"))


def test_torchscript_is_refused_with_what_takes_its_weights_out(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with pytest.warns((FutureWarning, DeprecationWarning)):
        torch.jit.save(torch.jit.trace(network().eval(), torch.zeros(1, 3, 32, 32)), path)
    with pytest.raises(DataError, match=r'torch.save\(torch.jit.load\(".*script.pt"\).state_dict\(\), "weights.pth"'):
        read_checkpoint(path)


def test_a_folder_and_a_broken_link_are_named(tmp_path: Path) -> None:
    save_file(dict(STATE), tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"is a folder\. Name the file in it, such as .*model\.safetensors"):
        read_checkpoint(tmp_path)
    with pytest.raises(DataError, match="a device or a pipe"):
        read_checkpoint("/dev/null")
    (tmp_path / "link.pth").symlink_to(tmp_path / "gone.pth")
    with pytest.raises(DataError, match=r"a link to .*gone\.pth, which is not there"):
        read_checkpoint(tmp_path / "link.pth")


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("how", [{}, OLD])
def test_no_code_runs_out_of_a_file_of_any_age(how: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "trap": Trap(tmp_path / "sprung")}, tmp_path / "m.pth", **how)
    with pytest.raises(DataError, match="whole Python objects"):
        read_checkpoint(tmp_path / "m.pth", STATE)
    assert not (tmp_path / "sprung").exists()


def changed(name: str, change: Callable[[Tensor], Tensor]) -> State:
    return {**STATE, name: change(STATE[name].clone())}


def poked(value: float) -> Callable[[Tensor], Tensor]:
    def poke(tensor: Tensor) -> Tensor:
        tensor.flatten()[3] = value
        return tensor

    return poke


UNSOUND: dict[str, tuple[State, tuple[str, ...]]] = {
    "not a number": (changed("conv1.weight", poked(torch.nan)), ("conv1.weight (4, 3, 3, 3)", "has 1", "nan")),
    "infinity": (changed("fc.bias", poked(torch.inf)), ("fc.bias (10,)", "inf")),
    "too large": (changed("fc.bias", lambda t: t.double() + 1e300), ("fc.bias (10,)", "has 10", "1e+300")),
    "integers": (changed("fc.weight", lambda t: t.to(torch.int8)), ("fc.weight (10, 16)", "int8")),
    "complex": (changed("fc.weight", lambda t: t.to(torch.complex64)), ("fc.weight (10, 16)", "complex64")),
    "sparse": (changed("fc.weight", lambda t: t.to_sparse()), ("fc.weight (10, 16)", "sparse")),
    "negative variance": (changed("bn1.running_var", poked(-0.5)), ("bn1.running_var (4,)", "-0.5")),
    "missing": ({k: t for k, t in STATE.items() if not k.startswith("layer3.0.conv")}, ("missing: 2", "layer3.0.conv")),
    "unknown": ({**STATE, "layer4.0.conv1.weight": torch.ones(1)}, ("unknown: 1 (layer4.0.conv1.weight)",)),
    "another width": (dict(build("resnet8", width=8).state_dict()), ("conv1.weight (8, 3, 3, 3) for (4, 3, 3, 3)",)),
    "pruned": ({**STATE, "fc.weight_orig": torch.ones(1)}, ("prune.remove",)),
    "an adapter": ({"conv1.A": torch.ones(1), "conv1.B": torch.ones(1)}, ("adapter",)),
}


@pytest.mark.parametrize("kind", UNSOUND)
def test_unsound_tensors_are_refused_by_name_and_nothing_is_loaded(kind: str, tmp_path: Path) -> None:
    state, said = UNSOUND[kind]
    torch.save(state, tmp_path / "weights.pth")
    model, before = network(2), network(2)
    checkpoint = read_checkpoint(tmp_path / "weights.pth", model.state_dict())
    with pytest.raises(DataError) as raised:
        load_into(model, checkpoint, "weights.pth")
    assert all(text in str(raised.value) for text in (*said, "weights.pth")), raised.value
    assert equal(model, before)


def test_what_stays_fresh_is_not_looked_at_in_the_file() -> None:
    model, fresh = network(2), network(2)
    came = Checkpoint(changed("fc.weight", lambda t: torch.full((3, 16), torch.nan)))
    load_into(model, came, "m", fresh=("fc.weight", "fc.bias"))
    assert torch.equal(model.conv1.weight, network().conv1.weight) and torch.equal(model.fc.weight, fresh.fc.weight)


def test_imagenet_weights_say_where_their_file_belongs_when_they_cannot_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for proxy in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # nobody listens there
    for none in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(none, raising=False)
    with pytest.raises(DataError) as raised:
        imagenet(build("resnet18"), "resnet18")
    place = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    assert f"https://download.pytorch.org/models/{place.name}" in str(raised.value) and str(place) in str(raised.value)


def test_imagenet_weights_are_taken_from_torchvisions_folder_but_stem_and_classifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    place.parent.mkdir(parents=True)
    source = torchvision.models.resnet18()
    torch.save(source.state_dict(), place)
    model, fresh = build("resnet18"), build("resnet18")
    assert "stem and classifier are drawn anew" in imagenet(model, "resnet18").notes[-1]
    assert torch.equal(model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert torch.equal(model.conv1.weight, fresh.conv1.weight) and torch.equal(model.fc.weight, fresh.fc.weight)
    place.write_bytes(place.read_bytes()[:100_000])
    with pytest.raises(DataError, match="truncated"):
        imagenet(model, "resnet18")


class Shortcut(nn.Module):
    """akamaster/pytorch_resnet_cifar10's LambdaLayer: option A, without tensors."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.planes = planes

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.planes // 4, self.planes // 4), "constant", 0)


class PublicBlock(nn.Module):
    """Its BasicBlock."""

    def __init__(self, c_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False), nn.BatchNorm2d(planes)
        self.shortcut = Shortcut(planes) if stride != 1 or c_in != planes else nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class PublicResNet20(nn.Module):
    """Its resnet20, names and all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = self.stage(16, 16, 1), self.stage(16, 32, 2), self.stage(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def stage(c_in: int, planes: int, stride: int) -> nn.Sequential:
        return nn.Sequential(PublicBlock(c_in, planes, stride), *(PublicBlock(planes, planes, 1) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        x = F.avg_pool2d(x, x.size()[3])
        found: Tensor = self.linear(x.view(x.size(0), -1))
        return found


def public_resnet20() -> nn.Module:
    """With statistics and shifts that are not those of a fresh network."""
    draw = torch_stream(3, "public")
    model = PublicResNet20()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            drawn = torch.rand(tensor.shape, generator=draw) - 0.5
            tensor.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return model.eval()


def test_a_public_resnet20_with_identity_shortcuts_gives_its_authors_logits(tmp_path: Path) -> None:
    theirs = public_resnet20()
    state = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.73}, tmp_path / "resnet20-12fca82f.th")
    ours = build("resnet20", shortcut="identity").eval()
    checkpoint = read_checkpoint(tmp_path / "resnet20-12fca82f.th", ours.state_dict())
    notes = (*checkpoint.notes, *load_into(ours, checkpoint, "public"))
    assert {"2 tensors renamed (linear.weight taken for fc.weight, ...)", "prefix 'module.' stripped"} < {*notes}
    images = torch.rand(8, 3, 32, 32, generator=torch_stream(4, "images"))
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), atol=1e-5)


def test_its_authors_normalization_is_a_setting(tmp_path: Path) -> None:
    theirs = public_resnet20()
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "public.th")
    settings = ["model.name=resnet20", "shortcut=identity", "model.normalization=imagenet"]
    config = load_config(None, [*settings, f"model.weights={tmp_path / 'public.th'}"])
    data = open_data(config)
    base = load_base_model(config, data)
    images, labels = (torch.from_numpy(of[data.evaluation[:50]]) for of in (data.images, data.labels))
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        logits = theirs((images.permute(0, 3, 1, 2) / 255 - mean) / std)
    right = float((logits.argmax(1) == labels).double().mean())
    assert accuracy(base.model, images, labels, normalization=base.normalization) == pytest.approx(right)


def test_names_are_put_right_only_where_that_makes_them_fit(tmp_path: Path) -> None:
    model = network()
    theirs = {name: name.replace("fc.", "linear.").replace(".downsample.", ".shortcut.") for name in model.state_dict()}
    state = {theirs[name]: tensor for name, tensor in model.state_dict().items()}
    torch.save({"net": state, "acc": 95.3}, tmp_path / "kuangliu.pth")
    found, notes = loaded(tmp_path / "kuangliu.pth")
    assert equal(found, model) and any("renamed" in note for note in notes)
    torch.save({**model.state_dict(), "linear.weight": torch.zeros(3, 16)}, tmp_path / "both.pth")
    with pytest.raises(DataError, match=r"unknown: 1 \(linear\.weight\)"):
        loaded(tmp_path / "both.pth")
