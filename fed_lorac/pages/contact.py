"""What cameras see, for a page. Knows a run's config; not how a sheet is laid out."""

from io import BytesIO
from pathlib import Path

from fed_lorac.api.result import load_run
from fed_lorac.errors import FedLoracError
from fed_lorac.pages.chart import Absent, Figure, Picture

__all__ = ["CONTACT_SHEET", "contact_sheet"]

CONTACT_SHEET = "contact-sheet"
_TITLE = "What cameras see"


def contact_sheet(folder: Path) -> Figure | Absent:
    """The contact sheet of a run's fleet, or why its images cannot be had: they may lie on another machine."""
    from fed_lorac.experiment.build import build_experiment  # noqa: PLC0415  (PyTorch, for those who look at images)
    from fed_lorac.reporting.contact_sheet import alternative  # noqa: PLC0415
    from fed_lorac.reporting.contact_sheet import contact_sheet as laid_out  # noqa: PLC0415

    try:
        experiment = build_experiment(load_run(folder).config)
        sheet, file = laid_out(experiment), BytesIO()
    except (FedLoracError, OSError) as error:
        return Absent(_TITLE, f"the images cannot be read here: {error}")
    sheet.save(file, "PNG")
    when = "in rounds from the first to the last" if experiment.fleet.changing else "each in its weather"
    caption = f"Some of the images that the first cameras adapt on, {when}."
    return Figure(CONTACT_SHEET, _TITLE, caption, alternative(experiment), [], Picture(file.getvalue()))
