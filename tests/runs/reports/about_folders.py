"""Reports about data on disk: image folders as people have them, official files that lack some, and the cache."""

import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from deep import GREY_ALPHA, RGB, png, ppm, tiff
from pictures import image_folder
from reported import SHORT, Case

MINE = ("-c", "data.name=folder", "-c", "data.root=cams", "-c", "model.weights=none", "-c", "width=4")
RUN = ("run", *SHORT, "-c", "fleet.images=5", "-c", "fleet.eval_images=5", *MINE, "--out", "out")
HERE = {"FED_LORAC_DATA": ""}  # a relative root starts here
LATIN = os.fsdecode(b"caf\xe9")
Make = Callable[[Path], Sequence[str]]
NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def a_folder(change: Callable[[Path], object] = lambda root: None, words: Sequence[str] = RUN) -> Make:
    """A folder of two classes, changed in one way, and a run on it."""

    def make(folder: Path) -> Sequence[str]:
        change(image_folder(folder / "cams"))
        return words

    return make


def splits(
    *names: str, classes: tuple[str, ...] = ("ant", "bee"), then: Callable[[Path], object] = lambda root: None
) -> Make:
    """A folder with these splits, each with the same two classes."""

    def make(folder: Path) -> Sequence[str]:
        for name in names:
            image_folder(folder / "cams" / name, classes, images=15)
        then(folder / "cams")
        return RUN

    return make


def with_file(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / "ant" / name).write_bytes(content)


def damage(count: int) -> Callable[[Path], object]:
    """So many images of each class cut in the middle."""

    def change(root: Path) -> None:
        for path in (path for name in ("ant", "bee") for path in sorted((root / name).iterdir())[:count]):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return change


def trained(folder: Path) -> None:
    """The run went through: it has results."""
    assert (folder / "out" / "summary.json").is_file()


def nothing_was_run(folder: Path) -> None:
    assert not [path for path in folder.rglob("*.json*") if path.is_file()]


def refused(kind: str, make: Make, *says: str, **more: object) -> Case:
    return Case(kind, make, 1, ("DataError", *says), environment=HERE, check=nothing_was_run, **more)  # type: ignore[arg-type]


def taken(kind: str, make: Make, *says: str) -> Case:
    return Case(kind, make, 0, ("cams", *says), environment=HERE, check=trained)


LINKS = [
    refused(
        "a link among class folders that leads nowhere",
        a_folder(lambda root: (root / "cow").symlink_to("/mnt/not-mounted/cow")),
        "cams/cow is a link that leads nowhere: No such file or directory. Fix it, or remove it.",
    ),
    refused(
        "a link among images that leads nowhere",
        a_folder(lambda root: (root / "ant" / "x.png").symlink_to("gone.png")),
        "cams/ant/x.png is a link that leads nowhere",
    ),
    refused(
        "a link that leads to itself",
        a_folder(lambda root: (root / "cow").symlink_to("cow")),
        "cams/cow is a link that leads nowhere: Too many levels",
    ),
    refused("a pipe for an image", a_folder(lambda root: os.mkfifo(root / "ant" / "x.png")), "x.png is not a file"),
    refused("a pipe for a class", a_folder(lambda root: os.mkfifo(root / "cow")), "cow is neither folder nor file"),
    taken("plain files beside class folders", a_folder(lambda root: (root / "README.txt").touch())),
]

SPLITS = [
    taken("Train and Test with capitals", splits("Train", "Test")),
    taken("a val folder beside train and test", splits("train", "test", "val"), "what else it has is not read: val/"),
    refused("train and Train", splits("train", "Train", "test"), "one train/; ", "has Train/ and train/"),
    refused("Train and val", splits("Train", "val"), "has Train/ and no test/. Rename val/ to test/"),
    refused("Training and Testing", splits("Training", "Testing"), "must be called train/ and test/", "Rename them"),
    refused(
        "Train and Test that differ in capitals of a class",
        splits("Train", "Test", then=lambda root: (root / "Test" / "bee").rename(root / "Test" / "Bee")),
        "cams/Test/bee",
        "cams/Train/Bee",
    ),
]

NAMES = [
    refused(
        "a class whose name is not UTF-8",
        a_folder(lambda root: (root / "bee").rename(root / LATIN)),
        r"has a folder called $'caf\xe9' (as bash writes it). Rename it",
    ),
    refused("a class with a line break", a_folder(lambda root: (root / "bee").rename(root / "a\nb")), r"$'a\nb'"),
    taken(
        "an image whose name is not UTF-8",
        a_folder(lambda root: (root / "bee" / "00.png").rename(root / "bee" / f"{LATIN}.png")),
    ),
    refused(
        "a damaged image whose name is not UTF-8",
        a_folder(with_file(f"{LATIN}.png", b"x")),
        r"ant/caf\udce9.png is not: it begins like none of these formats",
    ),
    Case(
        "a root whose name is not UTF-8",
        lambda folder: [*RUN, "-c", f"data.root={LATIN}"],
        2,
        ("data.root must be text that UTF-8 can write", r"caf\udce9", "link to it"),
        check=nothing_was_run,
    ),
    Case(
        "a folder for all data whose name is not UTF-8",
        lambda folder: RUN,
        1,
        ("DataError", r"caf\udce9/cams", "make a link to it"),
        environment={"FED_LORAC_DATA": LATIN},
    ),
    refused(
        "two classes that look the same",
        a_folder(lambda root: [(root / "bee").rename(root / NFC), (root / "ant").rename(root / NFD)]),
        "which look the same",
    ),
    taken(
        "train as Linux writes it, test as a Mac does",
        splits(
            "train", "test", classes=("ant", NFC), then=lambda root: (root / "test" / NFC).rename(root / "test" / NFD)
        ),
    ),
]

IMAGES = [
    refused(
        "a 16-bit colour PNG",
        a_folder(with_file("x.png", png(16, RGB))),
        "cams/ant/x.png is not: it has 16 bits a channel.",
        "magick mogrify -depth 8 FILE",
    ),
    refused("a 16-bit PNG of grey and alpha", a_folder(with_file("x.png", png(16, GREY_ALPHA))), "has 16 bits"),
    refused("a 16-bit colour TIFF", a_folder(with_file("x.tif", tiff(16))), "x.tif is not: it has 16 bits a channel"),
    refused("a 16-bit PPM", a_folder(with_file("x.ppm", ppm(65535))), "x.ppm is not: it has 16 bits a channel"),
    taken("an 8-bit TIFF and a PPM of 100 levels", a_folder(lambda root: [
        (root / "ant" / name).write_bytes(content) for name, content in (("x.tif", tiff(8)), ("y.ppm", ppm(100)))
    ])),
    refused("three damaged images", a_folder(damage(3), [*RUN]), "6 of 80 are not:", "ant/02.png:", "bee/02.png:"),
    refused(
        "many damaged images",
        a_folder(damage(20)),
        "40 of 80 are not:",
        "ant/00.png:",
        "ant/09.png:",
        "and 30 more",
        never=("ant/10.png",),
    ),
]  # fmt: skip


def official(*there: str, clean: bool = True) -> Callable[[Path], None]:
    """CIFAR-10-C as published, forty pictures a block, with these corruptions alone."""

    def make(folder: Path) -> None:
        rng = np.random.default_rng(0)
        (place := folder / "CIFAR-10-C").mkdir()
        np.save(place / "labels.npy", np.tile(np.arange(40) % 10, 5))
        for name in there:
            np.save(place / f"{name}.npy", rng.integers(0, 256, (200, 32, 32, 3), np.uint8))
        if clean:
            np.save(place / "_clean.npy", rng.integers(0, 256, (40, 32, 32, 3), np.uint8))

    return make


def on_official(make: Callable[[Path], None], command: str, *words: str) -> Make:
    def with_files(folder: Path) -> Sequence[str]:
        make(folder)
        settings = ("-c", "data.name=cifar10c", "-c", "fleet.images=5", "-c", "fleet.eval_images=5", *MINE[4:])
        return [command, *SHORT, *settings, *(part for word in words for part in ("-c", word))]

    return with_files


WEATHER = [
    refused(
        "CIFAR-10-C without files that are asked for",
        on_official(official("fog"), "run", "fleet.cameras=3", "fleet.corruptions=fog, snow, frost"),
        "CIFAR-10-C/snow.npy",
        "CIFAR-10-C/frost.npy are missing. There are fog.",
    ),
    refused(
        "CIFAR-10-C without a file that a walk may come to",
        on_official(official("fog", "snow"), "run", "fleet.schedule=walk", "fleet.corruptions=fog, snow, frost"),
        "CIFAR-10-C/frost.npy is missing",
    ),
    refused(
        "CIFAR-10-C without clean images under weather that clears",
        on_official(official("fog", clean=False), "run", "fleet.schedule=front", "fleet.corruptions=fog"),
        "has no clean images",
    ),
    Case(
        "the doctor on CIFAR-10-C without files that are asked for",
        on_official(official("fog"), "doctor", "fleet.corruptions=fog, snow"),
        1,
        ("snow.npy is missing",),
        environment=HERE,
    ),
    Case(
        "CIFAR-10-C with the files that its cameras need",
        on_official(official("fog", "snow"), "run", "fleet.corruptions=fog, snow, frost"),
        0,  # two cameras: nobody stands in frost
        ("cifar10c (40 images)",),
        environment=HERE,
    ),
]


def a_home(folder: Path) -> None:
    """Things that are not ours, some with names like ours."""
    for name in ("thesis.pdf", "base-mine.safetensors", "photos.tmp-2024/1.png", "0" * 32 + "/entry.json"):
        (folder / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "home" / name).write_text("{}")


def the_home_is_whole(folder: Path) -> None:
    assert len([path for path in (folder / "home").rglob("*") if path.is_file()]) == 4


def cleared(*words: str) -> Make:
    def make(folder: Path) -> Sequence[str]:
        a_home(folder)
        return ["cache", "--clear", *words]

    return make


def with_an_entry(folder: Path) -> Sequence[str]:
    (folder / f"{'a' * 32}.lock").touch()
    return ["cache", "--clear"]


def a_file_for_a_cache(folder: Path) -> Sequence[str]:
    (folder / "file").touch()
    return ["cache"]


CACHE = [
    Case(
        "a cache that is somebody's home is cleared",
        cleared("--yes"),
        0,
        ("Removed 0.",),
        environment={"FED_LORAC_CACHE": "home"},
        check=the_home_is_whole,
    ),
    Case(
        "clearing where nobody can be asked",
        with_an_entry,
        2,
        ("there is no terminal to ask on. Add --yes.",),
        environment={"FED_LORAC_CACHE": "."},
    ),
    Case(
        "a cache whose folder is a file",
        a_file_for_a_cache,
        1,
        ("The cache must be a readable folder",),
        environment={"FED_LORAC_CACHE": "file"},
    ),
]

CASES = [*LINKS, *SPLITS, *NAMES, *IMAGES, *WEATHER, *CACHE]
