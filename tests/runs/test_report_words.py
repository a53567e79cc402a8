"""Laws of what a report says in words: whose numbers they are, which arm is meant, and why something is not there."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_studies import NAMED

import fed_lorac as fl
from fed_lorac.pages.chart import Absent, Figure, Heat
from fed_lorac.pages.figures import FIGURES
from fed_lorac.pages.lead import lead, tiles
from fed_lorac.pages.page import page
from fed_lorac.pages.reported import Arm, Reported, read_reported
from fed_lorac.pages.words import bytes_said

SETTINGS = NAMED | {"fleet.cameras": 2, "fleet.per_round": 2, "fleet.images": 25, "fleet.schedule": "front"}
STUDY: dict[str, Any] = {
    "seeds": [0, 1],
    "settings": SETTINGS,
    "arms": {
        "long": {"adapter.rank": 1, "run.rounds": 3},
        "short": {"adapter.rank": 2, "run.rounds": 1},
        "bad": {"model.weights": "nowhere.safetensors"},
    },
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> fl.StudyResult:
    """Of which seed 0 has ended: two arms finished it, in one it failed."""
    return fl.study(STUDY, tmp_path_factory.mktemp("words") / "out", seeds=[0], progress=False)


def figure(name: str, found: Reported) -> Figure:
    drawn = FIGURES[name](found)
    assert isinstance(drawn, Figure), drawn
    return drawn


def test_the_arm_that_sends_least_a_round_is_named_however_many_rounds_it_has(study: fl.StudyResult) -> None:
    found = read_reported([study.path])
    assert [arm.label for arm in found.arms] == ["short", "long"], "the whole of short is less"
    a_round = study.rounds.groupby("arm")[["uplink_frame_bytes", "downlink_frame_bytes"]].mean()
    assert a_round.sum(axis=1).idxmin() == "long"
    up, down = a_round.loc["long"]
    assert figure("bytes", found).caption.startswith(
        f"long sends least: {bytes_said(up)} up and {bytes_said(down)} down a round"
    )


def test_runs_to_come_are_counted_whatever_arm_they_are_of_and_failed_ones_are_not(study: fl.StudyResult) -> None:
    found = read_reported([study.path])
    assert found.waiting == study.runs.status.eq("waiting").sum() == 3
    text = page(found, [], {})
    assert "<li>3 runs are not finished.</li>" in text and text.count("<li>Failed: bad, seed 0: ") == 1
    assert "not finished" not in page(replace(found, waiting=0), [], {})
    assert "<li>1 run is not finished.</li>" in page(replace(found, waiting=1), [], {})


@pytest.mark.parametrize(
    ("places", "labels"),
    [
        (("a/ranks", "b/ranks"), ("a/ranks", "b/ranks")),
        (("a/ranks", "b/rates"), ("ranks", "rates")),
        (("x/a/ranks", "y/a/ranks", "z"), ("x/a/ranks", "y/a/ranks", "z")),
    ],
)
def test_arms_of_two_studies_are_told_apart_by_where_their_folders_differ(
    study: fl.StudyResult, tmp_path: Path, places: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    for place in places:
        shutil.copytree(study.path, tmp_path / place)
    found = read_reported([tmp_path / place for place in places])
    assert len(found.arms) == len({arm.label for arm in found.arms}) == 2 * len(places)
    for place, label in zip(places, labels, strict=True):
        its = {arm.label.partition(": ")[0] for arm in found.arms if tmp_path / place in arm.runs[0].folder.parents}
        assert its == {label}
    assert len({error.partition(": ")[0] for error in found.errors}) == len(places)


def with_shares(found: Reported, **arms: tuple[float | None, float, float]) -> Reported:
    """Arms of one fleet with this share of full fine-tuning's bytes, accuracy and gain."""
    run = found.arms[0].runs[0]

    def made(label: str, share: float | None, accuracy: float, gain: float) -> Arm:
        known = {"accuracy": accuracy, "accuracy_over_rounds": accuracy, "gain_recovered": gain}
        sent = {"share_of_full_fp32": share, "total_bytes": int(1000 * (share or 1)), "gain_over_rounds": gain}
        return Arm(label, [replace(run, row={**run.row, **known, **sent})])

    return replace(found, arms=[made(label, *its) for label, its in arms.items()], errors=[])


def test_an_arm_is_said_to_send_less_only_where_it_does(study: fl.StudyResult) -> None:
    found = read_reported([study.path])
    for share, less in ((0.5, True), (1.0, False), (1.4, False), (None, False)):
        made = with_shares(found, full=(1.0, 0.8, 1.0), other=(share, 0.9, 1.2))
        assert ("that sends less, other" in lead(made)) == less
        assert ("The most accurate arm, other" in lead(made)) == (not less)
        name = next(iter(tiles(made)))
        assert name == f"most accurate{' with fewer bytes than full fine-tuning' * less}: other"


def test_no_arm_keeps_most_of_the_gain_only_among_those_that_send_less(study: fl.StudyResult) -> None:
    found = read_reported([study.path])
    none = "No arm that sends less keeps 90 % of full fine-tuning's gain."
    full = (1.0, 0.8, 1.0)
    assert none in lead(with_shares(found, full=full, more=(1.4, 0.9, 1.2), less=(0.1, 0.6, 0.3)))
    assert none not in lead(with_shares(found, full=full, more=(1.4, 0.9, 1.2)))  # none sends less
    assert none not in lead(with_shares(found, full=full, less=(0.1, 0.79, 0.95)))


def copied(study: fl.StudyResult, arm: str, to: Path) -> Path:
    """The folder of an arm's finished run, to change."""
    [run] = study.runs[(study.runs.arm == arm) & (study.runs.status == "finished")].run
    shutil.copytree(study.run(run).path, to)
    return to


@pytest.mark.parametrize("rounds", [12, 13, 24])
def test_each_cell_of_many_rounds_has_its_severity(study: fl.StudyResult, tmp_path: Path, rounds: int) -> None:
    folder = copied(study, "long", tmp_path / "run")
    rows = [
        {
            **{"round": number, "camera": camera, "corruption": "fog", "severity": (number + camera) % 6},
            **{"accuracy": 0.5, "link": "lte"},
        }
        for number in range(1, rounds + 1)
        for camera in range(2)
    ]
    (folder / "cameras.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chart = figure("weather-rounds", read_reported([folder])).chart
    assert isinstance(chart, Heat) and len(chart.notes) == 2
    for camera, line in enumerate(chart.notes):
        severities = [(number + camera) % 6 for number in range(1, rounds + 1)]
        assert line == (
            [f"fog {severity}" if severity else "clear" for severity in severities]
            if rounds == 12
            else [str(severity) for severity in severities]
        )


def test_of_runs_that_send_nothing_no_other_reason_is_given(study: fl.StudyResult, tmp_path: Path) -> None:
    folder = copied(study, "long", tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    silent = {key for key in summary["bytes"] if re.match("(up|down)link_", key)}
    changed = {"bytes": summary["bytes"] | dict.fromkeys(silent, 0), "total_bytes": 0}
    (folder / "summary.json").write_text(json.dumps(summary | changed))
    for name, joules in (("rounds.jsonl", None), ("cameras.jsonl", 0.0)):
        rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        none = {"energy_radio_j": joules}
        quiet = [row | {key: 0 for key in row if re.match("(up|down)link_.*bytes", key)} | none for row in rows]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in quiet))
    found = read_reported([folder])
    for name in ("curves", "bytes", "air", "energy"):
        drawn = FIGURES[name](found)
        assert isinstance(drawn, Absent) and drawn.why == "nothing was sent."
