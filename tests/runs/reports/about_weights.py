"""Reports about weight files: as people have them, on data that is or is not theirs, behind a normalisation."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from reported import SHORT, Case
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from fed_lorac.models import build

State = dict[str, Tensor]

TINY = ("-c", "width=4", "-c", "run.rounds=1")
ADVICE = ("weights_only", "safe_globals", "trust the source")  # PyTorch's, to load unsafely


def state(classes: int = 10) -> State:
    """A small ResNet-8's; half precision holds its numbers exactly."""
    return {
        name: tensor.half().to(tensor.dtype)
        for name, tensor in build("resnet8", width=4, num_classes=classes).state_dict().items()
    }


def changed(name: str, value: float | torch.dtype) -> State:
    found = state()
    found[name] = found[name].to(value) if isinstance(value, torch.dtype) else torch.full_like(found[name], value)
    return found


def headless() -> State:
    return {name: tensor for name, tensor in state().items() if not name.startswith("fc.")}


def run_of(make: Callable[[Path], None], *more: str, command: str = "run") -> Callable[[Path], Sequence[str]]:
    """Make `weights.pth`, and run a small run over digits that starts from it."""

    def words(folder: Path) -> Sequence[str]:
        make(folder / "weights.pth")
        return [command, *(SHORT if command == "run" else ()), *TINY, "-c", "model.weights=weights.pth", *more]

    return words


def saved(content: Any, **how: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content() if callable(content) else content, path, **how)


def written(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def half_of(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        make(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return cut


def script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls it deprecated; people have the files
        torch.jit.save(torch.jit.trace(build("resnet8", width=4).eval(), torch.zeros(1, 3, 32, 32)), path)


def wrapped() -> Mapping[str, Any]:
    return {
        "epoch": 90,
        "state_dict": {f"module.{name}": t.half() if t.is_floating_point() else t for name, t in state().items()},
    }


def photos(root: Path, classes: Sequence[str]) -> None:
    """A folder of small pictures, a dozen a class."""
    draw = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / name / f"{number:02d}.png")


TWELVE = [str(number) for number in range(12)]


def folder_run(
    classes: Sequence[str], its: Sequence[str], *more: str, command: str = "run"
) -> Callable[[Path], Sequence[str]]:
    """A run over pictures of these classes, from a base whose metadata names its own (none: the default, shipped)."""

    def words(folder: Path) -> Sequence[str]:
        photos(folder / "photos", classes)
        asked = [
            command,
            *(SHORT if command == "run" else ()),
            "-c",
            "data.name=folder",
            "-c",
            "data.root=photos",
            *more,
        ]
        if not its:
            return asked
        said = {"classes": json.dumps(list(its)), "normalization": "cifar10"}
        save_file(state(len(its)), folder / "base.safetensors", said)
        return [*asked, *TINY, "-c", "model.weights=base.safetensors"]

    return words


def offline(folder: Path) -> Sequence[str]:
    return ["run", "-c", "model.name=resnet18", "-c", "model.weights=imagenet"]


OFFLINE = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}


def recorded(folder: Path) -> None:
    """A run's own model says what it was normalised by, and its summary what was done to the base."""
    [run] = (folder / "runs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["base"]["normalization"] == "half" and len(summary["base"]["notes"]) == 2, summary["base"]
    assert load_file(run / "model.safetensors")


HERE = {"FED_LORAC_DATA": ""}  # a relative data.root starts where the command does

CASES = [
    Case("weights: an empty file", run_of(written(b"")), 1, says=("weights.pth is empty",)),
    Case(
        "weights: a Git LFS pointer",
        run_of(written(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1092\n")),
        1,
        says=("weights.pth is a Git LFS pointer", "git lfs pull"),
    ),
    Case(
        "weights: a web page saved in their place",
        run_of(written(b"<!DOCTYPE html><html><head><title>Page not found</title></head></html>")),
        1,
        says=("is a web page ('Page not found')", "Fetch the file itself"),
    ),
    Case("weights: a zip cut short", run_of(half_of(saved(state))), 1, says=("Was it truncated?",), never=ADVICE),
    Case(
        "weights: TorchScript",
        run_of(script),
        1,
        says=("is TorchScript", 'torch.save(torch.jit.load("weights.pth").state_dict(), "weights.pth")'),
        never=ADVICE,
    ),
    Case(
        "weights: a whole network pickled",
        run_of(saved(lambda: build("resnet8", width=4))),
        1,
        says=("whole Python objects (fed_lorac.models.cifar_resnet", 'torch.save(model.state_dict(), "weights.pth")'),
        never=ADVICE,
    ),
    Case("weights: a folder", run_of(lambda path: path.mkdir()), 1, says=("weights.pth is a folder",)),
    Case(
        "weights: safetensors that are called .pth",
        run_of(written(save(state(), {"classes": json.dumps(TWELVE[:10]), "normalization": "cifar10"}))),
        0,
        never=("Base weights.pth",),
    ),
    Case(
        "weights: wrapped, of DataParallel, in half precision, of unknown classes and normalization",
        run_of(saved(wrapped)),
        0,
        says=(
            "Base weights.pth: taken from its key 'state_dict'.",
            "Base weights.pth: prefix 'module.' stripped.",
            "Base weights.pth: float16 converted to float32.",
            "its classes are not recorded: its 10 are taken to be the data's",
            "its normalization is not recorded: cifar10 assumed (model.normalization)",
        ),
    ),
    Case(
        "weights: no head, in a run that trains none",
        run_of(saved(headless), "-c", "train_classifier=false"),
        1,
        says=(
            "weights.pth: no classifier (fc.weight and fc.bias)",
            "`fed-lorac pretrain -c model.weights=weights.pth -c model.resnet8.width=4 --out base.safetensors`",
            'model.weights = "base.safetensors"',
        ),
    ),
    Case(
        "weights: no head, where training goes on",
        run_of(saved(headless), "--epochs", "1", "--out", "base.safetensors", command="pretrain"),
        0,
        says=(
            "Base weights.pth: its classifier is drawn anew, to be trained: no classifier",
            "clean test accuracy",
        ),
    ),
    Case(
        "weights: a head of another size, which cameras train",
        run_of(saved(lambda: state(1000))),
        0,
        says=("its classifier is drawn anew, to be trained: fc.weight (1000, 16) for (10, 16)",),
    ),
    Case(
        "weights: a head of another size, which nobody trains",
        run_of(saved(lambda: state(1000)), "-c", "strategy.name=zero-byte"),
        1,
        says=("weights.pth: fc.weight (1000, 16) for (10, 16), fc.bias (1000,) for (10,)", "fed-lorac pretrain -c"),
    ),
    Case(
        "weights: of another width",
        run_of(saved(lambda: build("resnet8", width=8).state_dict())),
        1,
        says=("weights.pth", "conv1.weight (8, 3, 3, 3) for (4, 3, 3, 3)"),
    ),
    Case(
        "weights: not a number among them",
        run_of(saved(lambda: changed("layer1.0.conv1.weight", torch.nan))),
        1,
        says=("layer1.0.conv1.weight (4, 4, 3, 3) in weights.pth has 144 that are not (the first is nan)",),
    ),
    Case(
        "weights: integers in place of numbers",
        run_of(saved(lambda: changed("fc.weight", torch.int8))),
        1,
        says=("fc.weight (10, 16) in weights.pth is int8", "before it is quantised"),
    ),
    Case(
        "weights: a negative variance",
        run_of(saved(lambda: changed("bn1.running_var", -1.0))),
        1,
        says=("A variance is never negative; bn1.running_var (4,) in weights.pth goes down to -1",),
    ),
    Case(
        "weights: an unknown key and a missing one",
        run_of(saved(lambda: {name.replace("bn1.bias", "bn1.beta"): tensor for name, tensor in state().items()})),
        1,
        says=("missing: 4 (bn1.bias, ", "unknown: 4 (bn1.beta, "),
    ),
    Case("weights: a name mistyped", lambda folder: ["run", "-c", "model.weights=shiped"], 2, says=("'shipped'?",)),
    Case(
        "weights: ImageNet's without a network",
        offline,
        1,
        says=(
            "https://download.pytorch.org/models/resnet18-f37072fd.pth",
            "put it at /nowhere/hub/checkpoints/resnet18",
        ),
        environment={**OFFLINE, "TORCH_HOME": "/nowhere", "no_proxy": "", "NO_PROXY": ""},
    ),
    Case(
        "weights: that do not fit, to the doctor",
        run_of(saved(headless), "-c", "train_classifier=false", command="doctor"),
        1,
        says=("unfit Node", "no classifier"),
    ),
    Case(
        "weights: notes of them, from the doctor",
        run_of(saved(state), command="doctor"),
        0,
        says=(
            "note Base weights.pth: its normalization is not recorded: cifar10 assumed",
            "This machine can run this config.",
        ),
    ),
    Case(
        "classes: 00 to 11 in the base, 0 to 11 in the folder",
        folder_run(TWELVE, [f"{number:02d}" for number in range(12)]),
        1,
        says=(
            "the data lacks '00', '01', '02', ...",
            "it lacks '0', '1', '2', .... They differ in leading zeros alone. Rename the class folders, or train",
            "-c data.name=folder -c data.root=photos --out base-2.safetensors`",
        ),
        environment=HERE,
    ),
    Case(
        "classes: the same in another order",
        folder_run(TWELVE, TWELVE),  # a folder's are in the order of text: 0, 1, 10, 11, 2
        0,
        says=("Base base.safetensors: its classes come in another order than the data's: the classifier's rows were",),
        environment=HERE,
    ),
    Case(
        "classes: others, where training goes on",
        folder_run(TWELVE, ["cat", "dog"], "--epochs", "1", "--out", "new.safetensors", command="pretrain"),
        0,
        says=("its classifier is drawn anew, to be trained: of its 2 classes the data lacks 'cat', 'dog'",),
        environment=HERE,
    ),
    Case(
        "classes: shipped weights on a folder of ten others",
        folder_run([f"sign {number}" for number in range(10)], (), "-c", "model.name=resnet20"),
        1,
        says=(
            "Shipped weights are for the data that they were trained on; those of resnet20 are of cifar10",
            "`fed-lorac pretrain -c model.name=resnet20 -c data.name=folder -c data.root=photos --out base.",
        ),
        environment=HERE,
    ),
    Case(
        "normalization: another than the base's",
        folder_run(sorted(TWELVE), sorted(TWELVE), "-c", "model.normalization=imagenet"),
        1,
        says=("base.safetensors says 'cifar10', model.normalization is 'imagenet'. Set it to \"auto\".",),
        environment=HERE,
    ),
    Case(
        "normalization: set for a file that says none",
        run_of(saved(state), "-c", "model.normalization=0.5 0.5 0.5 / 0.5 0.5 0.5"),
        0,
        says=("Base weights.pth: its normalization is not recorded: half as set (model.normalization).",),
        check=recorded,
    ),
    Case(
        "normalization: a name mistyped",
        lambda folder: ["run", "-c", "model.weights=none", "-c", "model.normalization=imagnet"],
        2,
        says=("Did you mean 'imagenet'?",),
    ),
    Case(
        "normalization: numbers of 0 to 255 without saying so",
        lambda folder: ["run", "-c", "model.weights=none", "-c", "model.normalization=125 123 114 / 63 62 67"],
        2,
        says=("Numbers for pixels of 0..255 end in / 255.",),
    ),
]
