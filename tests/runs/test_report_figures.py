"""Laws of a report's figures: their numbers are the runs' own, and the front is what no arm beats."""

import json
import shutil
from collections import Counter
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_studies import FULL, NAMED

import fed_lorac as fl
from fed_lorac.errors import ConfigError, RunError
from fed_lorac.pages import report as report_room
from fed_lorac.pages.chart import Absent, Figure, Plot
from fed_lorac.pages.figures import FIGURES
from fed_lorac.pages.figures.frontier import Point, on_front
from fed_lorac.pages.figures.levels import free_and_full
from fed_lorac.pages.reported import Arm, Reported, read_reported
from fed_lorac.pages.words import bytes_said, power_said
from fed_lorac.records.ledger import read_rows

SETTINGS = NAMED | {"fleet.devices": "limited", "fleet.limited.dropout": 0.4, "fleet.schedule": "front"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> fl.Run:
    return fl.run(SETTINGS, out=tmp_path_factory.mktemp("reported") / "run", progress=False)


@pytest.fixture(scope="module")
def found(run: fl.Run) -> Reported:
    return read_reported([run.path])


def rows_of(name: str, found: Reported) -> list[dict[str, object]]:
    figure = FIGURES[name](found)
    assert isinstance(figure, Figure), figure
    assert figure.caption and figure.alt and figure.title
    return list(figure.rows)


def test_accuracies_and_bytes_are_those_of_the_ledger(run: fl.Run, found: Reported) -> None:
    (row,) = rows_of("frontier", found)
    over_rounds = run.summary["over_rounds"]  # the weather changes here
    assert (row["accuracy_over_rounds"], row["total_bytes"]) == (over_rounds["adapted"], run.summary["total_bytes"])
    assert row["zero_byte_over_rounds"] == over_rounds["zero_byte"]
    assert [row[f"share_of_full_{of}"] for of in ("fp32", "same_codec")] == [
        run.summary["total_bytes"] / run.summary[f"full_{of}total_bytes"] for of in ("fp32_", "")
    ]
    curve = rows_of("curves", found)
    sent = accumulate(run.rounds["uplink_frame_bytes"] + run.rounds["downlink_frame_bytes"])
    assert [row["total_bytes"] for row in curve] == list(sent)
    assert [row["accuracy"] for row in curve] == run.rounds["accuracy"].tolist()
    (a_round,) = rows_of("bytes", found)
    for way in ("uplink", "downlink"):
        assert a_round[f"{way}_frame_bytes"] == run.rounds[f"{way}_frame_bytes"].mean()
    assert [row["aggregation_error"] for row in rows_of("error", found)] == run.rounds[
        "aggregation_error"
    ].dropna().tolist()


def test_each_camera_and_the_worst_of_them_are_those_of_the_ledger(run: fl.Run, found: Reported) -> None:
    last = run.cameras.query(f"round == {run.config.run.rounds}")
    for name in ("cameras", "spread"):
        rows = {row["camera"]: row for row in rows_of(name, found)}
        assert {k: row["accuracy"] for k, row in rows.items()} == dict(zip(last.camera, last.accuracy, strict=True))
    figure = FIGURES["spread"](found)
    assert isinstance(figure, Figure)
    assert f"camera {last.loc[last.accuracy.idxmin(), 'camera']}, " in figure.caption
    over = {(row["camera"], row["round"]): row["severity"] for row in rows_of("weather-rounds", found)}
    assert over == {(row.camera, row.round): row.severity for row in run.cameras.itertuples()}


def test_replies_that_were_left_out_are_counted_by_reason(run: fl.Run, found: Reported) -> None:
    reasons: Counter[str] = Counter()
    for counts in run.rounds["reasons"]:
        reasons.update(counts)
    rows = rows_of("left-out", found)
    assert {row["reason"]: row["replies"] for row in rows} == dict(reasons) and reasons
    assert rows[0]["asked"] == (run.rounds.cameras_counted + run.rounds.cameras_left_out).sum()


def test_times_and_weathers_are_those_of_the_summary(run: fl.Run, found: Reported) -> None:
    days = {row["link"]: row["days"] for row in rows_of("air", found)}
    assert days == {name: its["adapter"] for name, its in run.summary["days"].items()}
    adapted = {
        row["weather"]: row["accuracy"] for row in rows_of("weather", found) if row["arm"] == found.arms[0].label
    }
    per_weather = {name: its["adapted"] for name, its in run.summary["per_corruption"].items()}
    assert adapted == {**per_weather, "all in clear air": run.summary["clean_accuracy"]["adapted"]}


def test_energy_is_a_camera_s_in_the_whole_run_where_the_ledger_has_it(run: fl.Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    joules = {0: 1.0, 1: 2.0, 2: 4.0, 3: None}
    rows = [{**row, "energy_radio_j": joules[row["camera"]]} for row in read_rows(run.path / "cameras.jsonl").rows]
    (tmp_path / "run" / "cameras.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (row,) = rows_of("energy", read_reported([tmp_path / "run"]))
    assert row["energy_j"] == run.config.run.rounds * (1.0 + 2.0 + 4.0) / 3


def test_what_cannot_be_drawn_says_why(found: Reported) -> None:
    assert isinstance(absent := FIGURES["tuning"](found), Absent) and "not tuned" in absent.why


TWO = {key: value for key, value in SETTINGS.items() if key.startswith(("data.", "model.", "run.", "local."))}
TWO |= {"run.rounds": 1, "fleet.cameras": 2, "fleet.per_round": 2, "fleet.images": 50}


@pytest.mark.slow
def test_a_page_of_several_studies_has_each_arm_s_tuning_under_its_own_name(tmp_path: Path) -> None:
    tune = {"grid": {"local.lr": [0.01, 0.05]}, "settings": {"fleet.validation_share": 0.2}}
    study = {"settings": TWO, "arms": {"full": FULL}, "tune": tune}
    modes = fl.study({**study, "grid": {"batch_norm.mode": ["frozen", "local"]}}, tmp_path / "modes", progress=False)
    plain = fl.study(study, tmp_path / "plain", progress=False)
    alone = Counter(row["arm"] for row in rows_of("tuning", read_reported([modes.path])))
    assert alone == {"full, mode frozen": 2, "full, mode local": 2}
    both = Counter(row["arm"] for row in rows_of("tuning", read_reported([plain.path, modes.path])))
    assert both == {"plain: full": 2, "modes: full, mode frozen": 2, "modes: full, mode local": 2}
    _, full = free_and_full(read_reported([modes.path]))
    assert full == modes.runs.full_accuracy.iloc[0] == modes.runs.accuracy.max()


def test_no_level_is_drawn_where_runs_of_a_seed_have_several(tmp_path: Path) -> None:
    grid = {"fleet.per_round": [1, 2]}  # one fleet and base; full fine-tuning is another with each
    settings = {**TWO, "model.weights": "pretrain", "model.pretrain.epochs": 2, "local.lr": 0.05}
    found = fl.study({"settings": settings, "grid": grid, "arms": {"full": FULL}}, tmp_path / "two", progress=False)
    reported = read_reported([found.path])
    assert len(set(found.runs.full_accuracy)) == 2 and reported.one_fleet
    assert free_and_full(reported) == (found.runs.zero_byte_accuracy.iloc[0], None) and reported.full_bytes is None


points = st.builds(
    Point,
    arm=st.just(Arm("a", [])),
    total_bytes=st.integers(1, 20).map(float),
    accuracy=st.integers(0, 20).map(lambda value: value / 20),
    half=st.none(),
    share=st.none(),
    gain=st.none(),
)


@given(st.lists(points, min_size=1, max_size=12))
def test_the_front_is_what_no_arm_beats(arms: list[Point]) -> None:
    front = {(point.total_bytes, point.accuracy) for point in on_front(arms)}
    for point in arms:
        beaten = any(
            (other.total_bytes <= point.total_bytes and other.accuracy > point.accuracy)
            or (other.total_bytes < point.total_bytes and other.accuracy >= point.accuracy)
            for other in arms
        )
        assert ((point.total_bytes, point.accuracy) in front) == (not beaten)


@pytest.mark.parametrize(
    ("sending", "alone", "front"), [(0.6, 0.55, {"sends", "alone"}), (0.6, 0.7, {"alone"}), (0.4, 0.45, set())]
)
def test_on_the_front_is_what_beats_sending_nothing(
    run: fl.Run, tmp_path: Path, sending: float, alone: float, front: set[str]
) -> None:
    for name, accuracy, total in (("sends", sending, None), ("alone", alone, 0)):
        shutil.copytree(run.path, tmp_path / name)
        file = tmp_path / name / "summary.json"
        summary = json.loads(file.read_text())
        summary |= {"adapted_accuracy": accuracy, "zero_byte_accuracy": 0.5, "label": name}
        summary["over_rounds"] |= {"adapted": accuracy, "zero_byte": 0.5}  # the weather of these runs changes
        if total is not None:
            own = {key for key in summary["bytes"] if key.startswith(("uplink_", "downlink_"))}
            summary |= {"total_bytes": total, "bytes": summary["bytes"] | dict.fromkeys(own, 0)}
        file.write_text(json.dumps(summary))
    figure = FIGURES["frontier"](read_reported([tmp_path / "sends", tmp_path / "alone"]))
    assert isinstance(figure, Figure) and isinstance(figure.chart, Plot)
    assert {"sends"} & front == {row["arm"] for row in figure.rows if row["on_front"]}
    lines = [level.name for level in figure.chart.levels if "alone" in level.name]
    assert lines == ([f"nothing sent (alone), {100 * alone:.1f}\u00a0%"] if alone > 0.5 else [])


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999\u00a0B"), (999_700, "1\u00a0MB"), (218_000, "218\u00a0kB"), (0, "0\u00a0B")]
)
def test_bytes_are_said_in_units_of_a_thousand(count: int, text: str) -> None:
    assert bytes_said(count) == text


def test_a_power_of_ten_is_said_as_one() -> None:
    assert (power_said(1e-5), power_said(3e-5), power_said(100.0)) == ("10⁻⁵", "3·10⁻⁵", "10²")


def test_a_report_without_its_packages_names_the_remedy(run: fl.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_room, "_PACKAGES", ("matplotlib", "nobody_has_this"))
    with pytest.raises(ConfigError, match=r'nobody_has_this.* pip install "fed-lorac\[report\]"'):
        fl.report(run)


def test_a_report_is_of_finished_runs(tmp_path: Path, run: fl.Run) -> None:
    with pytest.raises(RunError, match=r"studies \(study\.parquet\); .* has neither"):
        fl.report(tmp_path)
    with pytest.raises(ConfigError, match="Name at least one"):
        fl.report()
    begun = tmp_path / "begun"
    begun.mkdir()
    for name in ("config.toml", "rounds.jsonl", "cameras.jsonl"):
        (begun / name).write_bytes((run.path / name).read_bytes())
    with pytest.raises(RunError, match="A report is of finished runs"):
        fl.report(begun)
