"""Laws of comparing: what is one row, what it is called, what its numbers are means of and shares of."""

import copy
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from scipy import stats
from small_runs import rows, tiny

import fed_lorac as fl
from fed_lorac.errors import ConfigError, RunError
from fed_lorac.records.summaries import read_summary
from fed_lorac.reporting.alike import ComparedRun, rows_of
from fed_lorac.reporting.compare import comparison
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

FULL = {"adapter__method": "full", "strategy__name": "fedavg", "local__lr": 0.02}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run, which the made ones are like."""
    out = tmp_path_factory.mktemp("compared") / "lora"
    run(tiny(run__rounds=1), out, Watch())
    return out


@pytest.fixture
def like(folder: Path) -> Any:
    """(name, {"adapted": accuracy, "zero_byte": ...}, settings ...) -> such a run, but for these."""
    real = read_summary(folder)

    def made(name: str = "a", accuracies: dict[str, float] | None = None, **changes: object) -> ComparedRun:
        found = copy.deepcopy(real)
        settings = {key.replace("__", "."): value for key, value in changes.items()}
        found["config"] |= settings
        found["seed"] = found["config"]["run.seed"]
        found |= {f"{arm}_accuracy": value for arm, value in (accuracies or {}).items()}
        if settings.get("adapter.method") == "full":
            found |= {"method": "full", "strategy": "fedavg", "label": "full fine-tuning"}
        return ComparedRun(name, found)

    return made


def table_of(*runs: ComparedRun) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Label -> header -> cell, and the notes."""
    lines = comparison(runs).written().splitlines()
    lined = (line.removeprefix("| ").removesuffix(" |") for line in lines if line.startswith("|"))
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lined]
    assert len({len(line) for line in cells}) == 1
    return {line[0]: dict(zip(cells[0], line, strict=True)) for line in cells[2:]}, [
        line for line in lines if line.startswith("- ")
    ]


# ---- Which runs are one row ----


def test_runs_that_differ_in_seed_and_place_alone_are_one_row(like: Any) -> None:
    other = {"run__out": "elsewhere", "run__workers": 4, "run__ray__address": "head:6379"}
    [row] = rows_of([like("a"), like("b", run__seed=1), like("c", run__seed=2, **other)])
    assert row.seeds == [0, 1, 2] and row.label == "lora-c r=2 (auto), merged svd"


def test_a_row_is_the_mean_over_its_seeds_and_their_spread(like: Any) -> None:
    scores = [0.70, 0.75, 0.77]
    table, notes = table_of(*(like(str(k), {"adapted": v}, run__seed=k) for k, v in enumerate(scores)))
    row = table["lora-c r=2 (auto), merged svd"]
    half = stats.t.ppf(0.975, 2) * stdev(scores) / 3**0.5
    assert row["fleet mean"] == f"{100 * fmean(scores):.1f} ± {100 * half:.1f}"
    assert row["seeds"] == "0, 1, 2" and any("95 % confidence interval" in note for note in notes)


def test_a_run_and_its_repetition_are_not_two_seeds(like: Any) -> None:
    labels = [row.label for row in rows_of([like("runs/a"), like("runs/b"), like("runs/c", run__seed=1)])]
    assert labels == [f"lora-c r=2 (auto), merged svd; runs/{name}" for name in "abc"]


def test_a_run_whose_config_is_lost_is_a_row_of_its_own(like: Any) -> None:
    lost = [like(name, run__seed=seed) for name, seed in (("a", 0), ("b", 1))]
    lost = [ComparedRun(one.folder, {**one.summary, "config": {}}) for one in lost]
    assert len(rows_of(lost)) == 2


# ---- What a row is called ----


def test_a_label_names_the_settings_that_differ(like: Any) -> None:
    labels = [row.label for row in rows_of([like("a"), like("b", codec__up="int8"), like("c", run__seed=1)])]
    assert labels == [f"lora-c r=2 (auto), merged svd; codec.up={codec}" for codec in ("fp32", "int8")]


def test_a_label_that_is_another_method_s_needs_no_settings(like: Any) -> None:
    assert [row.label for row in rows_of([like("a"), like("b", adapter__method="full")])] == [
        "lora-c r=2 (auto), merged svd",
        "full fine-tuning",
    ]


def test_runs_that_differ_in_much_are_called_by_their_folders(like: Any) -> None:
    much = {f"local__{key}": 7 for key in ("epochs", "lr", "momentum", "batch_size", "weight_decay")}
    labels = [row.label for row in rows_of([like("runs/a"), like("runs/b", **much)])]
    assert labels == [f"lora-c r=2 (auto), merged svd; runs/{name}" for name in "ab"]


def test_what_was_settled_on_the_machine_tells_runs_apart(like: Any) -> None:
    other = like("b")
    other = ComparedRun("b", {**other.summary, "precision": "bf16"})
    assert [row.label for row in rows_of([like("a"), other])] == [
        f"lora-c r=2 (auto), merged svd; run.precision={precision}" for precision in ("fp32", "bf16")
    ]


# ---- What a share and a gain are of ----


def test_shares_are_of_full_fine_tuning_in_fp32_whatever_the_codec(tmp_path: Path) -> None:
    codec = {"codec__up": "int8", "codec__down": "int8"}
    settings = {"fp32": {}, "int8": codec, "full": FULL, "full int8": {**FULL, **codec}}
    for name, changes in settings.items():
        run(tiny(run__rounds=1, **changes), tmp_path / name, Watch())
    found = {name: ComparedRun.read(tmp_path / name) for name in settings}
    table, _ = table_of(*found.values())
    full, full_int8 = (found[name].summary["total_bytes"] for name in ("full", "full int8"))
    for row, one in zip([*table.values()][2:], found.values(), strict=True):
        ours = one.summary["total_bytes"]
        own = full_int8 if "int8" in one.folder else full
        assert row["of full, fp32"] == f"{100 * ours / full:.2f} %"
        assert row["of full, same codec"] == f"{100 * ours / own:.2f} %"
    [told] = rows(tmp_path / "int8" / "rounds.jsonl")
    [sent] = rows(tmp_path / "full" / "rounds.jsonl")
    for way in ("uplink", "downlink"):
        assert told[f"full_fp32_{way}_message_bytes"] == sent[f"{way}_message_bytes"]


def test_both_shares_are_there_whatever_the_codec(like: Any) -> None:
    table, _ = table_of(like("a"))
    row = table["lora-c r=2 (auto), merged svd"]
    assert row["of full, fp32"] == row["of full, same codec"] != "-"


def test_a_gain_is_of_each_seed_s_own_and_seeds_without_full_are_left_out(like: Any) -> None:
    bases, lora, full = (0.50, 0.60, 0.40), (0.56, 0.68, 0.40), (0.60, 0.70)
    runs = [like(f"lora{k}", {"zero_byte": bases[k], "adapted": lora[k]}, run__seed=k, local__lr=0.1) for k in range(3)]
    runs += [
        like(f"full{k}", {"zero_byte": bases[k], "adapted": full[k]}, run__seed=k, adapter__method="full")
        for k in range(2)
    ]
    table, notes = table_of(*runs)
    row = table["lora-c r=2 (auto), merged svd"]
    assert row["gain recovered"] == "70 ± 127 % (2 of 3)"  # 12.7 standard errors, of two seeds
    assert any("leaves out seed 2" in note for note in notes)
    assert any("not of the same seeds" in note for note in notes)


def test_a_gain_is_of_full_fine_tuning_on_the_same_fleet(like: Any) -> None:
    small, large = {"fleet__images": 7}, {"fleet__images": 9}
    lora = {"zero_byte": 0.5, "adapted": 0.56}
    full = {"adapter__method": "full", "local__lr": 0.1}
    runs = [like("a", lora, **small), like("b", lora, **large), like("full", {**lora, "adapted": 0.6}, **full, **small)]
    names = [f"lora-c r=2 (auto), merged svd; fleet.images={images}" for images in (7, 9)]
    table, notes = table_of(*runs)
    assert [table[name]["gain recovered"] for name in names] == ["60 %", ""]
    left_out = "leaves out seed 0, for which no run of full fine-tuning is on the same fleet."
    assert [note for note in notes if "leaves out" in note] == [f'- "gain recovered" of {names[1]} {left_out}']
    more = like("full too", {**lora, "adapted": 0.62}, **full, **large)  # the more accurate, on a fleet of its own
    table, notes = table_of(*runs, more)
    assert [table[name]["gain recovered"] for name in names] == ["60 %", "50 %"]
    assert not any("leaves out" in note for note in notes)
    both = ", or ".join(f"full fine-tuning; fleet.images={images}" for images in (7, 9))
    assert f'- "gain recovered" is of the gain of {both}, on the same fleet.' in notes


def test_without_batch_norm_the_row_says_so_and_a_gain_is_over_the_source(like: Any) -> None:
    runs = [
        like("lora", {"source": 0.5, "adapted": 0.56}, local__lr=0.1),
        like("full", {"source": 0.5, "adapted": 0.6}, adapter__method="full"),
    ]
    for one in runs:
        one.summary["base"]["batch_norm"] = False
        one.summary["zero_byte_accuracy"] = None
        for means in (*one.summary["per_corruption"].values(), one.summary["clean_accuracy"]):
            means["zero_byte"] = None
    table, notes = table_of(*runs)
    row = table["local batch norm, nothing sent"]
    assert {row[name] for name in ("fog", "fleet mean", "clear air")} == {"no batch norm"}
    assert table["lora-c r=2 (auto), merged svd"]["gain recovered"] == "60 %"
    assert '- "gain recovered" is over "source": the network has no batch norm to adapt without sending.' in notes


def test_the_base_alone_is_the_mean_over_all_seeds(like: Any) -> None:
    table, _ = table_of(*(like(str(k), {"zero_byte": v}, run__seed=k) for k, v in enumerate((0.5, 0.7))))
    assert table["local batch norm, nothing sent"]["fleet mean"] == "60.0 ± 127.1"


def test_a_base_that_was_measured_otherwise_is_said(like: Any) -> None:
    runs = like("a", {"zero_byte": 0.5}), like("b", {"zero_byte": 0.6}, window=3)
    assert any("it differs in b" in note for note in table_of(*runs)[1])


# ---- Whether rows differ ----


def test_rows_over_one_fleet_are_tested_camera_by_camera_against_full_or_another(like: Any) -> None:
    def run(name: str, gain: float, **settings: object) -> ComparedRun:
        scores = {camera: 0.5 + 0.01 * camera + gain * (1 + camera % 3) for camera in range(8)}
        made: ComparedRun = like(name, **settings)
        return replace(made, cameras=scores)

    runs = [
        run("a", 0.02, local__lr=0.1, fleet__per_round=1),  # who is asked is no matter
        run("full", 0.0, adapter__method="full"),
        run("b", -0.01, local__lr=0.2),
    ]
    table, notes = table_of(*runs)
    _, _, a, full, b = table.values()
    points = 100 * fmean(1 + camera % 3 for camera in range(8))
    assert (a["difference, points"], b["difference, points"]) == (f"{0.02 * points:+.2f}", f"{-0.01 * points:+.2f}")
    assert a["p"] == b["p"] == f"{2 * 2 / 2**8:.3f}"  # all signs alike, of two rows
    assert full["difference, points"] == full["p"] == ""
    assert any('minus that of "full fine-tuning" on the same cameras' in note for note in notes)
    other = comparison(runs, against="a")
    assert [row[-1].text for row in other.rows] == ["", "", "", "0.016", "0.016"]
    with pytest.raises(ConfigError, match="one of the runs; got 'c'"):
        comparison(runs, against="c")


def test_rows_of_other_images_are_not_tested(like: Any) -> None:
    runs = [replace(like("a"), cameras={0: 0.5}), replace(like("b", fleet__images=7), cameras={0: 0.6})]
    table, notes = table_of(*runs)
    assert "p" not in table["source"] and any(note.startswith("- No paired test") for note in notes)


def test_cameras_in_other_weather_are_not_tested(like: Any) -> None:
    def run(name: str, rounds: int, **settings: object) -> ComparedRun:
        made: ComparedRun = like(name, run__rounds=rounds, **settings)
        ended = {"rounds": rounds, "schedule": made.summary["config"]["fleet.schedule"]}
        return replace(made, summary={**made.summary, **ended})

    assert run("a", 1).fleet == run("b", 3).fleet  # the last round's weather is the first's
    front = {"fleet__schedule": "front"}
    assert run("a", 1, **front).fleet == run("b", 1, local__lr=0.7, **front).fleet
    assert run("a", 1, **front).fleet != run("b", 3, **front).fleet


# ---- What does not compare ----


@pytest.mark.parametrize("alone", ["runs/a", Path("runs/a")])
def test_runs_are_compared_as_one_list(alone: str | Path) -> None:
    with pytest.raises(ConfigError, match=r"got 'runs/a' alone. Call fl.compare\(\[a, b\]\)"):
        fl.compare(alone, "runs/b")  # type: ignore[arg-type]


def test_a_drawn_base_may_differ_between_seeds_and_not_within_one(like: Any) -> None:
    other = like("b", run__seed=1)
    other.summary["base"]["fingerprint"] = "another"
    table_of(like("a"), other)
    same = like("c", local__lr=0.7)
    same.summary["base"]["fingerprint"] = "another"
    with pytest.raises(RunError, match="a and c differ in base"):
        comparison([like("a"), same])
    for one in (first := like("a"), other):
        one.summary["base"]["source"] = "shipped"
    with pytest.raises(RunError, match="differ in base"):
        comparison([first, other])


@pytest.mark.parametrize("setting", [{"fleet__severities": "5"}, {"fleet__schedule": "walk"}])
def test_other_weather_does_not_compare(like: Any, setting: dict[str, object]) -> None:
    other = like("b", **setting)
    other.summary["schedule"] = other.summary["config"]["fleet.schedule"]
    with pytest.raises(RunError, match="differ in weather"):
        comparison([like("a"), other])


def test_which_weather_was_measured_may_differ_between_seeds_and_not_within_one(like: Any) -> None:
    def seen(name: str, seed: int, *weathers: str, **settings: object) -> ComparedRun:
        made: ComparedRun = like(name, run__seed=seed, **settings)
        each = made.summary["per_corruption"]
        return replace(made, summary={**made.summary, "per_corruption": {name: each[name] for name in weathers}})

    a = seen("a", 0, "fog", "snow", "gaussian_noise")
    table, _ = table_of(a, seen("b", 1, "snow", "fog"), seen("c", 0, "gaussian_noise", "snow", "fog", local__lr=0.7))
    assert {"fog", "snow", "gaussian_noise"} < set(table["source"])
    with pytest.raises(RunError, match="a and d differ in weather"):
        comparison([a, seen("d", 0, "fog", "snow", local__lr=0.7)])


# ---- Over how many cameras ----


def test_means_say_over_how_many_cameras_they_are(tmp_path: Path) -> None:
    config = tiny(run__rounds=2, fleet__devices="limited", availability=0.6, strategy__quorum=0.0)
    run(config, tmp_path / "away", Watch())
    one = ComparedRun.read(tmp_path / "away")
    counts = one.summary["cameras_measured"]
    assert 0 < counts["adapted"] < counts["of"] == 4 and counts["source"] == 4
    assert sum(its["adapted"] for its in counts["per_corruption"].values()) == counts["adapted"]
    for row in rows(tmp_path / "away" / "rounds.jsonl"):
        assert row["cameras_measured"] in (counts["over_rounds"]["fewest"], counts["over_rounds"]["most"])
    assert rows(tmp_path / "away" / "rounds.jsonl")[-1]["cameras_measured"] == counts["adapted"]
    table, notes = table_of(one)
    assert table["lora-c r=2 (auto), merged svd"]["fleet mean"].endswith(f"({counts['adapted']})")
    assert "(" not in table["source"]["fleet mean"]
    assert "4 (fog 2, snow 1, gaussian_noise 1)" in notes[0]


# ---- Older runs ----


def as_of_before(folder: Path, out: Path) -> Path:
    """The run as versions left it whose summary had no config, no counts, and one kind of full fine-tuning."""
    shutil.copytree(folder, out)
    found = json.loads((out / "summary.json").read_text())
    for key in ("config", "cameras_measured", "full_fp32_total_bytes", "remarks"):
        del found[key]
    found["bytes"] = {key: value for key, value in found["bytes"].items() if "fp32" not in key}
    for times in (*found["air_time_s"].values(), *found["days"].values()):
        del times["full_fp32"]
    (out / "summary.json").write_text(json.dumps(found))
    ways = [f"full_fp32_{way}_{layer}_bytes" for way in ("uplink", "downlink") for layer in ("frame", "message")]
    new = ("cameras_measured", *ways)
    lines = [json.dumps(row) for row in rows(out / "rounds.jsonl", *new)]
    (out / "rounds.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return out


def test_a_run_of_an_older_version_compares_and_is_shown(folder: Path, tmp_path: Path) -> None:
    from rich.console import Console

    from fed_lorac.reporting.tables import show_run

    old = ComparedRun.read(as_of_before(folder, tmp_path / "old"), 0.01)
    assert old.summary["config"] == read_summary(folder)["config"]
    assert old.summary["full_fp32_total_bytes"] == old.summary["full_total_bytes"]
    _, notes = table_of(old)
    assert "not known, as an older version made the run" in notes[0]
    console = Console(record=True, width=80)
    show_run(console, old.summary)
    assert "share" in console.export_text()


def test_an_older_run_under_another_codec_has_no_share_that_was_not_recorded(tmp_path: Path) -> None:
    from rich.console import Console

    from fed_lorac.reporting.tables import show_run

    run(tiny(run__rounds=1, codec__up="int8"), tmp_path / "run", Watch())
    old = ComparedRun.read(as_of_before(tmp_path / "run", tmp_path / "old"))
    table, notes = table_of(old)
    assert table["lora-c r=2 (auto), merged svd"]["of full, fp32"] == "-"
    assert table["lora-c r=2 (auto), merged svd"]["of full, same codec"] != "-"
    assert any("did not record it" in note for note in notes)
    console = Console(record=True, width=120)
    show_run(console, old.summary)
    text = console.export_text()
    assert "same codec" in text and "were not recorded" in text


def test_a_folder_without_a_run_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(RunError, match="no run's summary"):
        read_summary(tmp_path)


@pytest.mark.parametrize("target", [float("nan"), -0.1, 70])
def test_an_accuracy_to_reach_is_a_share(target: float) -> None:
    with pytest.raises(ConfigError, match=r"from 0 to 1; got target = .* Give 0\.7 for 70 %"):
        fl.compare(["runs/a"], target)


def test_folders_in_the_home_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(RunError, match=f"{re.escape(str(tmp_path / 'gone'))} is not there"):
        fl.compare(["~/gone"])
