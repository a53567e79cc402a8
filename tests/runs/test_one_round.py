"""How much of the house one needs to know to follow a round: the files whose functions run in it."""

import sys
from pathlib import Path
from types import FrameType

from small_runs import ROOT

from fed_lorac.config import load_config
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run
from fed_lorac.simulation.round import run_round

MOST = 40
"""It was 68 before the rooms that fly together were merged."""

QUICK = ["run.rounds=2", "run.precision=fp32", "local.epochs=1", "fleet.images=30", "fleet.eval_images=20"]


def files_of_a_round(out: Path) -> set[str]:
    """Files of ours with a function that is called in the second round of the quick start, on one process."""
    found: set[str] = set()
    inside = False

    def note(frame: FrameType, event: str, arg: object) -> None:
        nonlocal inside
        if frame.f_code is run_round.__code__ and event in ("call", "return"):
            inside = event == "call" and frame.f_locals["number"] == 2
        if inside and event == "call":
            found.add(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run(load_config("quickstart", QUICK), out, Watch())
    finally:
        sys.setprofile(before)
    rooms = [ROOT / "fed_lorac", ROOT / "strategies"]
    return {str(Path(file).relative_to(ROOT)) for file in found if any(Path(file).is_relative_to(r) for r in rooms)}


def test_a_round_runs_through_few_files(tmp_path: Path) -> None:
    files = sorted(files_of_a_round(tmp_path / "run"))
    assert "fed_lorac/simulation/round.py" in files and "strategies/merged.py" in files
    assert len(files) <= MOST, "\n".join(files)
