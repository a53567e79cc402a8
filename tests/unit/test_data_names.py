"""Laws of an image folder's layout: links, splits, and names that are not what they seem. None is dropped silently."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from fed_lorac.data.datasets import load
from fed_lorac.data.image_folder import list_images
from fed_lorac.errors import DataError

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def lay(root: Path, *files: str) -> Path:
    """Empty files below the root: a listing opens none."""
    for file in files:
        (path := root / file).parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    return lay(tmp_path / "cams", "ant/1.png", "ant/2.png", "bee/1.png")


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return lay(tmp_path / "cams", *(f"{part}/{name}/1.png" for part in ("train", "test") for name in ("ant", "bee")))


def test_plain_files_and_hidden_things_beside_classes_are_none(flat: Path) -> None:
    lay(flat, "README.txt", "labels.csv", "Thumbs.db", ".hidden/1.png")
    lay(flat, "ant/Thumbs.db", "bee/desktop.ini", "ant/.DS_Store", "__MACOSX/1.png")  # which systems leave in copies
    (flat / "link.txt").symlink_to(flat / "README.txt")
    found = list_images(flat)
    assert found.classes == ("ant", "bee") and all(file.endswith(".png") for file in found.files)


def test_a_link_to_a_folder_is_a_class_as_good_as_any(flat: Path) -> None:
    lay(flat.parent, "elsewhere/1.png")
    (flat / "cow").symlink_to(flat.parent / "elsewhere")
    assert list_images(flat).classes == ("ant", "bee", "cow")


def _dangling_class(root: Path) -> Path:
    (path := root / "cow").symlink_to(root / "unmounted")
    return path


def _loop(root: Path) -> Path:
    (path := root / "cow").symlink_to(path)
    return path


def _ring(root: Path) -> Path:
    (path := root / "cow").symlink_to(root / "elk")
    (root / "elk").symlink_to(path)
    return path


def _into_itself(root: Path) -> Path:
    (root / "cow").symlink_to(root)
    return root / "cow" / "ant"


def _pipe(root: Path) -> Path:
    os.mkfifo(path := root / "cow")
    return path


def _dangling_image(root: Path) -> Path:
    (path := root / "ant" / "3.png").symlink_to(root / "nowhere.png")
    return path


def _looping_image(root: Path) -> Path:
    (path := root / "ant" / "3.png").symlink_to(path)
    return path


def _pipe_for_an_image(root: Path) -> Path:
    os.mkfifo(path := root / "ant" / "3.png")
    return path


LINKS = [_dangling_class, _loop, _ring, _into_itself, _pipe, _dangling_image, _looping_image, _pipe_for_an_image]


@pytest.mark.parametrize("fault", LINKS)
def test_what_may_be_a_class_or_an_image_is_never_dropped(flat: Path, fault: Callable[[Path], Path]) -> None:
    culprit = fault(flat)
    with pytest.raises(DataError) as caught:
        list_images(flat)
    assert str(culprit) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_named(flat: Path) -> None:
    (flat / "bee").chmod(0)
    try:
        with pytest.raises(DataError, match=f"{flat / 'bee'}.*Permission denied"):
            list_images(flat)
    finally:
        (flat / "bee").chmod(0o700)


# Splits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN"])
@pytest.mark.parametrize("test", ["test", "Test", "TEST"])
def test_splits_are_splits_in_any_capitalisation(split: Path, train: str, test: str) -> None:
    (split / "train").rename(split / train)
    (split / "test").rename(split / test)
    found = list_images(split)
    assert found.classes == ("ant", "bee") and found.train_count == 2 and len(found.files) == 4
    assert found.files[0] == str(split / train / "ant" / "1.png")


def test_capitalised_splits_with_loose_images_are_no_classes(tmp_path: Path) -> None:
    root = lay(tmp_path / "cams", "Train/1.png", "Train/2.png", "Test/3.png")
    with pytest.raises(DataError, match=r"two at least; .*Train has 0"):
        list_images(root)


@pytest.mark.parametrize("other", ["val", "valid", "meta"])
def test_what_lies_beside_train_and_test_is_said_not_to_be_read(
    split: Path, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    lay(split, f"{other}/ant/9.png", "README.txt")
    assert len(list_images(split).files) == 4
    assert f"not read: {other}/" in caplog.text and "README" not in caplog.text


def test_nothing_is_said_where_nothing_is_left_out(split: Path, caplog: pytest.LogCaptureFixture) -> None:
    list_images(lay(split, "README.txt"))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("train", "Train", "test"), "one train/; .* has Train/ and train/"),
        (("Train", "val"), "has Train/ and no test/. Rename val/ to test/"),
        (("train", "bus", "car"), "has train/ and no test/. Add test/.* If train/ is a class, rename it"),
        (("TEST", "training"), "has TEST/ and no train/. Rename training/ to train/"),
        (("Training", "Testing"), "called train/ and test/; .* has Testing/, Training/. Rename them"),
        (("val", "dev"), "has dev/, val/. Rename them"),
    ],
)
def test_folders_that_look_like_splits_are_refused_with_the_right_names(
    tmp_path: Path, names: tuple[str, ...], told: str
) -> None:
    root = lay(tmp_path / "cams", *(f"{name}/{kind}/1.png" for name in names for kind in ("ant", "bee")))
    with pytest.raises(DataError, match=told):
        list_images(root)


def test_classes_that_are_only_called_like_splits_are_classes(tmp_path: Path) -> None:
    assert list_images(lay(tmp_path / "stamps", "valid/1.png", "void/1.png")).classes == ("valid", "void")


def test_every_class_that_one_split_lacks_is_named(split: Path) -> None:
    lay(split, "train/Cow/1.png", "test/cow/1.png", "test/elk/1.png")
    with pytest.raises(DataError) as caught:
        list_images(split)
    for path in ("test/Cow", "train/cow", "train/elk"):
        assert str(split / path) in str(caught.value)


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [("caf\udce9", r"$'caf\xe9'"), ("a\nb", r"$'a\nb'"), ("a\tb", r"$'a\tb'"), ("\x1b[2J", r"\x1b[2J")],
)
def test_a_class_is_called_in_text_of_one_line(flat: Path, name: str, shown: str) -> None:
    lay(flat, f"{name}/1.png")
    with pytest.raises(DataError) as caught:
        list_images(flat)
    assert shown in str(caught.value) and str(flat) in str(caught.value)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("pair", [(NFC, NFD), ("cow", "cow "), ("red cow", "red  cow")])
def test_two_classes_that_look_the_same_are_refused(flat: Path, pair: tuple[str, str]) -> None:
    lay(flat, *(f"{name}/1.png" for name in pair))
    with pytest.raises(DataError, match="look the same"):
        list_images(flat)


def test_letters_as_classes_may_differ_by_case(tmp_path: Path) -> None:
    assert list_images(lay(tmp_path / "letters", "a/1.png", "A/1.png")).classes == ("A", "a")


def test_a_copy_through_a_mac_has_the_same_classes_and_images_in_the_same_order(tmp_path: Path) -> None:
    files = ["train/café/é.png", "train/café/z.png", "train/cat/1.png", "test/café/1.png", "test/cat/1.png"]
    found = []
    for form in ("NFC", "NFD"):
        root = lay(tmp_path / form, *(unicodedata.normalize(form, file) for file in files))
        listing = list_images(root)
        names = [unicodedata.normalize("NFC", file.removeprefix(f"{root}/")) for file in listing.files]
        found.append((listing.classes, listing.labels, names))
    assert found[0] == found[1]
    assert found[0][0] == ("café", "cat")  # sorted by the letters that are seen, whatever the bytes


def test_train_and_test_meet_in_whatever_form(tmp_path: Path) -> None:
    root = lay(tmp_path / "cams", f"train/{NFC}/1.png", "train/ant/1.png", f"test/{NFD}/1.png", "test/ant/1.png")
    assert list_images(root).classes == ("ant", NFC)


def test_a_root_is_called_in_utf_8(tmp_path: Path) -> None:
    root = lay(tmp_path / "caf\udce9", "ant/1.png", "bee/1.png")
    with pytest.raises(DataError, match=r"caf\\udce9.*link"):
        load("folder", root, cache_dir=tmp_path / "cache")
