"""Reported bugs stay found: each row of each table, run as its user ran it."""

from importlib import import_module
from pathlib import Path

import pytest
from reported import Case, see

TABLES = sorted(path.stem for path in Path(__file__).parent.glob("about_*.py"))
CASES: dict[str, list[Case]] = {table: import_module(table).CASES for table in TABLES}


@pytest.mark.parametrize("case", [pytest.param(case, id=case.kind) for cases in CASES.values() for case in cases])
def test_a_reported_input_is_right_or_refused_in_words(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    seen = see(case, folder)
    assert "Traceback" not in seen.text, seen.text
    assert seen.exit_code == case.exit_code, seen.text
    for text in case.says:
        assert text in seen.text
    for text in case.never:
        assert text not in seen.text
    case.check(folder)


def test_every_report_has_a_name_of_its_own() -> None:
    kinds = [case.kind for cases in CASES.values() for case in cases]
    assert sorted(set(kinds)) == sorted(kinds)
