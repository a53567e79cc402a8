"""Laws of what is taken for an image: 8 bits a channel by the file's own word, and all that fail named at once."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from deep import GREY, GREY_ALPHA, RGB, RGBA, png, ppm, tiff
from PIL import Image

from fed_lorac.data.decode import decode, decode_all
from fed_lorac.errors import DataError


def jpeg(bits: int) -> bytes:
    """A JPEG whose frame says that its samples have so many bits."""
    Image.new("RGB", (9, 9)).save(held := BytesIO(), "JPEG")
    content = bytearray(held.getvalue())
    content[content.index(b"\xff\xc0") + 4] = bits
    return bytes(content)


DEEP = {
    "colour.png": (png(16, RGB), "16 bits"),
    "grey.png": (png(16, GREY), "16 bits"),
    "grey-alpha.png": (png(16, GREY_ALPHA), "16 bits"),
    "colour-alpha.png": (png(16, RGBA), "16 bits"),
    "colour.tif": (tiff(16), "16 bits"),
    "grey.tif": (tiff(16, 1), "16 bits"),
    "signed.tif": (tiff(8, 1, sample_format=2), "8 signed bits"),
    "float.tif": (tiff(32, 1, sample_format=3), "32 float bits"),
    "colour.ppm": (ppm(65535), "16 bits"),
    "ten.ppm": (ppm(1023), "10 bits"),
    "nine.ppm": (ppm(256), "9 bits"),
    "letters.ppm": (ppm(4095, "P3"), "12 bits"),
    "grey.pgm": (ppm(65535, "P5"), "16 bits"),
    "ten.pgm": (ppm(1023, "P5"), "10 bits"),
    "letters.pgm": (ppm(65535, "P2"), "16 bits"),
    "float.pfm": (b"Pf\n9 9\n-1.0\n" + bytes(4 * 81), "32 float bits"),
    "colour.jpg": (jpeg(12), "12-bit"),
}


@pytest.mark.parametrize("name", DEEP)
def test_a_deep_image_is_refused_with_its_own_depth_and_a_remedy(tmp_path: Path, name: str) -> None:
    content, depth = DEEP[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"8 bits a channel.*{name}.*{depth}.*(depth 8 FILE|8 bits a channel)"):
        decode(tmp_path / name, 8)


PLAIN = {
    **{f"{bits}.png": (png(bits, GREY), None) for bits in (1, 2, 4)},
    **{f"{colour}.png": (png(8, colour), None) for colour in (GREY, RGB, GREY_ALPHA, RGBA)},
    "colour.tif": (tiff(8), 128),
    "grey.tif": (tiff(8, 1), 128),
    **{f"{kind}-255.ppm": (ppm(255, kind), 127) for kind in ("P6", "P5", "P3", "P2")},
    **{f"{kind}-100.ppm": (ppm(100, kind), 128) for kind in ("P6", "P5", "P3", "P2")},  # 50 of 100
    "bits.ppm": (b"P4\n9 9\n" + b"\0\0" * 9, 255),
    "colour.jpg": (jpeg(8), 0),
}


@pytest.mark.parametrize("name", PLAIN)
def test_an_image_of_8_bits_or_fewer_is_taken(tmp_path: Path, name: str) -> None:
    content, level = PLAIN[name]
    (tmp_path / name).write_bytes(content)
    pixels = decode(tmp_path / name, 8)
    assert level is None or (pixels == level).all()


def damaged(folder: Path, whole: int, bad: int) -> list[Path]:
    """Whole images, and after each of the first ones a bad one: empty, cut, no image and too deep in turn."""
    kinds = (b"", jpeg(8)[:300], b"not an image", png(16, RGB))
    paths = []
    for number in range(whole):
        (good := folder / f"{number:03}.png").write_bytes(png(8, RGB))
        paths.append(good)
        if number < bad:
            (wrong := folder / f"{number:03}-bad").write_bytes(kinds[number % 4])
            paths.append(wrong)
    return paths


def test_several_bad_images_are_named_at_once_each_with_its_reason_in_order(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        decode_all(damaged(tmp_path, 300, 4), 8, "")
    lines = str(caught.value).splitlines()
    assert "4 of 304 are not:" in lines[0]
    assert [line.split(": ")[0].strip() for line in lines[1:5]] == [str(tmp_path / f"{n:03}-bad") for n in range(4)]
    reasons = ["it is empty", "Truncated", "it begins like none", "it has 16 bits a channel"]
    assert all(reason in line for reason, line in zip(reasons, lines[1:5], strict=True))
    assert "remove it" in lines[5] and any("-depth 8" in line for line in lines[5:])


def test_ten_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    paths = damaged(tmp_path, 400, 300)
    with pytest.raises(DataError) as caught:
        decode_all(paths, 8, "")
    lines = str(caught.value).splitlines()
    assert "300 of 700 are not:" in lines[0]
    assert [line.split(": ")[0].strip() for line in lines[1:11]] == [str(tmp_path / f"{n:03}-bad") for n in range(10)]
    assert lines[11] == "  and 290 more"


def test_one_bad_image_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        decode_all(damaged(tmp_path, 5, 1), 8, "")
    assert "\n" not in str(caught.value) and "000-bad is not: it is empty" in str(caught.value)


def test_a_file_whose_name_is_no_text_is_read_and_its_damage_told(tmp_path: Path) -> None:
    good, bad = (tmp_path / name for name in ("caf\udce9.png", "th\udce9.png"))
    good.write_bytes(png(8, RGB))
    bad.write_bytes(b"")
    assert np.ptp(decode(good, 8)) == 0
    with pytest.raises(DataError) as caught:
        decode(bad, 8)
    assert r"th\udce9.png" in str(caught.value)
    str(caught.value).encode()
