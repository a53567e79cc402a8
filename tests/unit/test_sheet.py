"""Laws of a table's formats: one content, read back from each."""

import csv
import io
import re
from xml.etree import ElementTree

import pytest
from command_line import called

from fed_lorac.errors import ConfigError
from fed_lorac.reporting.cells import Cell, mean_of
from fed_lorac.reporting.sheet import Sheet

SHEET = Sheet(
    ["", "codec|way", "bytes_up & down", "p"],
    [
        [Cell("lora-c r=2 (r*k), 100 %"), Cell("int8|up"), mean_of([1, 3], "{:,.0f}"), Cell("<0.001", 0.0002)],
        [Cell("full #1 {x}~^\\"), Cell(""), mean_of([12_000], "{:,.0f}"), Cell("")],
    ],
    ["100 % of it"],
)


def test_csv_has_the_numbers_and_their_intervals_with_all_digits() -> None:
    first, second = csv.DictReader(io.StringIO(SHEET.written("csv")))
    assert first[""] == "lora-c r=2 (r*k), 100 %" and first["codec|way"] == "int8|up"
    assert float(first["bytes_up & down"]) == 2 and float(first["p"]) == 0.0002
    assert float(first["bytes_up & down, half of 95 % interval"]) == pytest.approx(12.706204736)
    assert (second["bytes_up & down"], second["bytes_up & down, half of 95 % interval"], second["p"]) == (
        "12000",
        "",
        "",
    )


def test_latex_has_as_many_cells_in_each_row_and_nothing_that_tex_reads_otherwise() -> None:
    text = SHEET.written("latex")
    head, *body = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert text.count("\\toprule") == text.count("\\midrule") == text.count("\\bottomrule") == 1
    assert r"\begin{tabular}{lrrr}" in text and text.splitlines()[-1] == "% 100 % of it"
    for line in (head, *body):
        assert len(re.findall(r"(?<!\\)&", line)) == 3
        plain = re.sub(r"\\text\w+\{\}|\\[&%$#_{}]|\$(\\pm|<|>)\$", "", line.removesuffix("\\\\"))
        assert not set(plain) & set("%$#_{}~^\\±")
    assert r"2 $\pm$ 13" in body[0] and r"$<$0.001" in body[0] and r"bytes\_up \& down" in head


def test_markdown_escapes_its_own_sign() -> None:
    lines = SHEET.written().splitlines()
    assert r"codec\|way" in lines[0] and len({len(re.findall(r"(?<!\\)\|", line)) for line in lines[:4]}) == 1
    assert lines[-2:] == ["", "- 100 % of it"]


def test_html_has_every_cell_and_note_escaped() -> None:
    page = ElementTree.fromstring(f"<div>{SHEET.as_html()}</div>")
    assert [cell.text or "" for cell in page.iter("td")] == [cell.text for row in SHEET.rows for cell in row]
    assert [cell.text or "" for cell in page.iter("th")] == SHEET.head
    assert [note.text for note in page.iter("li")] == SHEET.notes


def test_a_format_that_there_is_not_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="written as markdown, csv, latex; got 'html'"):
        SHEET.written("html")
    assert called(monkeypatch, "compare", "nowhere", "--format", "html") == 2
    assert "written as markdown, csv, latex" in " ".join(capsys.readouterr().err.split())
