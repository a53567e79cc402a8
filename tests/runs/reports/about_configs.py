"""Reports about config files, `-c`, and what can be known of a run before it starts."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from reported import SHORT, Case

from fed_lorac.config import shipped_configs

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
TINY_MAPS = ("model.name=resnet18", "model.weights=none", "data.image_size=8", "fleet.images=16")


def written(content: bytes, *words: str) -> Callable[[Path], Sequence[str]]:
    """A maker that writes `my.toml` first."""

    def make(folder: Path) -> Sequence[str]:
        (folder / "my.toml").write_bytes(content)
        return words

    return make


def with_(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("-c", setting)]


def seed_is_seven(folder: Path) -> None:
    assert json.loads((folder / "here/summary.json").read_text())["seed"] == 7


def nothing_was_started(folder: Path) -> None:
    assert not list(folder.iterdir())


CASES = [
    Case(
        "an override without a value",
        lambda folder: ["run", "-c", "run.rounds"],
        exit_code=2,
        says=("An override is key=value, such as run.rounds=20; got 'run.rounds'.",),
    ),
    Case(
        "True in Python's spelling",
        lambda folder: ["run", "-c", "data.cifar10.download=True"],
        exit_code=2,
        says=('[data.cifar10] is for data.name = "cifar10"; data.name is "digits"',),
        never=("must be true or false",),
    ),
    Case(
        "yes for true",
        lambda folder: ["run", "-c", "data.name=cifar10", "-c", "data.cifar10.download=yes"],
        exit_code=2,
        says=('data.cifar10.download must be true or false; got the text "yes". Write true.',),
    ),
    Case(
        "2.0 for a whole number",
        lambda folder: ["run", "-c", "run.rounds=2.0"],
        exit_code=2,
        says=("run.rounds must be a whole number; got 2.0. Write 2.",),
    ),
    Case(
        "a decimal comma",
        lambda folder: ["run", "-c", "local.lr=0,5"],
        exit_code=2,
        says=('local.lr must be a number; got the text "0,5". Write 0.5.',),
    ),
    Case(
        "a key that is near to none",
        lambda folder: ["run", "-c", "wandb.entity=fog"],
        exit_code=2,
        says=("There is no setting 'wandb.entity'. The sections are run, model, data",),
        never=("Did you mean",),
    ),
    Case(
        "a config name that is near to none",
        lambda folder: ["run", "llama"],
        exit_code=2,
        says=(f"Shipped are: {', '.join(shipped_configs())}.",),
        never=("Did you mean",),
    ),
    Case(
        "a config from Windows: a mark before UTF-8, CRLF, and lists as TOML writes them",
        written(
            b'\xef\xbb\xbf[run]\r\nseed = 7\r\n[fleet]\r\ncorruptions = ["fog", "snow"]\r\nseverities = [3]\r\n',
            *("run", "my.toml", *SHORT, "--out", "here"),
        ),
        exit_code=0,
        says=("fog", "snow"),
        check=seed_is_seven,
    ),
    Case(
        "a config in UTF-16",
        written("[run]\nseed = 7\n".encode("utf-16"), "run", "my.toml"),
        exit_code=2,
        says=("A config must be UTF-8 text; my.toml is UTF-16, or no text at all. Save it as UTF-8.",),
    ),
    Case(
        "device=cuda without a GPU",
        lambda folder: ["run", *SHORT, "-c", "device=cuda"],
        exit_code=1,
        says=('RunError: run.device = "cuda" needs a GPU that PyTorch finds; ', 'Set run.device = "cpu", or "auto".'),
        environment=NO_GPU,
        check=nothing_was_started,
    ),
    Case(
        "device=cuda without a GPU, asked of the doctor",
        lambda folder: ["doctor", "-c", "device=cuda"],
        exit_code=1,
        says=("unfit", 'run.device = "cuda" needs a GPU that PyTorch finds; '),
        environment=NO_GPU,
    ),
    Case(
        "more workers than the machine carries",
        lambda folder: ["run", *SHORT, "-c", "workers=9999"],
        exit_code=1,
        says=("run.workers = 9999 need 9999 CPUs and 9999 GiB", "which gives the same results"),
        environment={"RAY_ADDRESS": ""},
        check=nothing_was_started,
    ),
    Case(
        "more threads than any machine has",
        lambda folder: ["run", *SHORT, "-c", "threads=100000"],
        exit_code=2,
        says=("run.threads must be a whole number, at least 1, at most 1024; got 100000.",),
    ),
    Case(
        "a last batch of one image where maps are one pixel",
        lambda folder: ["run", *SHORT, *with_(*TINY_MAPS)],
        exit_code=2,
        says=("camera 0 has a batch of one image (16 images, local.batch_size = 15)", "Set local.batch_size = 14"),
        never=("Expected more than 1 value per channel",),
        check=nothing_was_started,
    ),
    Case(
        "a last batch of one image, asked of the doctor",
        lambda folder: ["doctor", *SHORT, *with_(*TINY_MAPS)],
        exit_code=1,
        says=("unfit", "camera 0 has a batch of one image (16 images, local.batch_size = 15)"),
    ),
    Case(
        "the help of an argument",
        lambda folder: ["run", "--help"],
        exit_code=0,
        says=("A name in sim_configs, or a path to a TOML file. [default: (quickstart)]",),
    ),
]
