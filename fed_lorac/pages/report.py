"""A report: one page about runs and studies, and its figures as files beside it. Knows files; not what is drawn."""

import csv
import io
from collections.abc import Sequence
from importlib.util import find_spec
from os import PathLike
from os.path import commonpath
from pathlib import Path

from fed_lorac.errors import ConfigError
from fed_lorac.pages.chart import Absent, Figure, Row
from fed_lorac.pages.reported import Reported, read_reported
from fed_lorac.runtime.files import home_expanded, write_bytes, write_text, writing

__all__ = ["PAGE", "report"]

PAGE, FOLDER = "report.html", "figures"
_PACKAGES = ("matplotlib", "plotly")
_KINDS = ("png", "svg", "csv")


def report(
    *paths: str | PathLike[str], out: str | PathLike[str] | None = None, title: str = "", images: bool = True
) -> Path:
    """Write a page about runs and studies, `report.html`, and its figures into `figures/` beside it: the page's path.

        fl.report("studies/ranks")

    The page is one file that needs no network: figures that show the run under the pointer, each with what to conclude
    from it, and a table. The files are PNG, SVG, and CSV with the numbers.

    Args:
        paths: folders of runs or studies, or `Run`s and `StudyResult`s.
        out: the folder that it is written to. None: that of the run or study; of several, the one that all are in.
        title: the page's; empty: the folder's name.
        images: show what cameras see; False where their images are not to be passed on.

    Raises:
        ConfigError: no path is given, or the extra `report` is not installed.
        RunError: a folder holds neither a run nor a study, none of them has a finished run, or nothing can be written.
    """
    _check_installed()
    folders = [home_expanded(Path(path)).absolute() for path in paths]
    if not folders:
        raise ConfigError("A report is about runs or studies; no folder was given. Name at least one.")
    found = read_reported(folders, title)
    target = _target(folders) if out is None else home_expanded(Path(out)).absolute()
    return _write(found, _figures(found, images=images), target)


def _check_installed() -> None:
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ConfigError(
            f"A report is drawn by {' and '.join(_PACKAGES)}; {' and '.join(missing)} not installed. "
            'Run pip install "fed-lorac[report]".'
        )


def _target(folders: Sequence[Path]) -> Path:
    return folders[0] if len(folders) == 1 else Path(commonpath(folders))


def _figures(found: Reported, *, images: bool) -> list[Figure | Absent]:
    from fed_lorac.pages.contact import contact_sheet  # noqa: PLC0415  (PyTorch, where images are looked at)
    from fed_lorac.pages.figures import FIGURES  # noqa: PLC0415

    drawn = [draw(found) for draw in FIGURES.values()]
    return [*drawn, contact_sheet(found.runs[0].folder)] if images else drawn


def _write(found: Reported, figures: Sequence[Figure | Absent], target: Path) -> Path:
    from fed_lorac.pages.contact import CONTACT_SHEET  # noqa: PLC0415
    from fed_lorac.pages.figures import FIGURES  # noqa: PLC0415
    from fed_lorac.pages.page import page  # noqa: PLC0415
    from fed_lorac.pages.static import static  # noqa: PLC0415

    shown = [one for one in figures if isinstance(one, Figure)]
    drawn = {one.name: static(one.chart) for one in shown}
    with writing(target):
        (target / FOLDER).mkdir(parents=True, exist_ok=True)
        for name in (*FIGURES, CONTACT_SHEET):  # of a report that was here before, and had more
            for kind in _KINDS:
                (target / FOLDER / f"{name}.{kind}").unlink(missing_ok=True)
    for one in shown:
        for kind, data in drawn[one.name].items():
            write_bytes(target / FOLDER / f"{one.name}.{kind}", data)
        if one.rows:
            write_text(target / FOLDER / f"{one.name}.csv", _csv(one.rows))
    return write_text(target / PAGE, page(found, figures, drawn))


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
