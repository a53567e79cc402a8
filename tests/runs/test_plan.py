"""Laws of plans: what is reckoned ahead is what a run bills, what cannot be is said, and the page's example is real."""

import json
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from small_runs import ROOT, rows, tiny

import fed_lorac as fl
from fed_lorac.errors import ConfigError
from fed_lorac.radio.battery import Battery
from fed_lorac.radio.cellular import NB1
from fed_lorac.radio.link import Link
from fed_lorac.radio.lora import time_on_air_s
from fed_lorac.radio.lorawan import DR0
from fed_lorac.registry import LINKS
from fed_lorac.reporting.plan import MethodSizes, Planned, Terms, planned
from fed_lorac.reporting.plan_table import plan_tables
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

TERMS = Terms(200, 1.0, 0.5, Battery(5.0), compute_s=10.0, compute_watt=2.0, idle_watt=0.0)


def a_row(link: Any, up: int = 2_000, down: int = 2_000, **terms: Any) -> Planned:
    (found,) = planned([MethodSizes("some", up, down)], [link], replace(TERMS, **terms))
    return found


def test_a_plans_frames_are_those_that_a_run_bills(tmp_path: Any) -> None:
    asked = {"codec__up": "int8", "run__rounds": 1}
    run(tiny(**asked), tmp_path / "run", Watch())
    found = fl.plan(tiny(**asked), methods=["own", "full"])
    own, full = found.rows
    row = rows(tmp_path / "run" / "cameras.jsonl")[0]
    assert (own.uplink_frame_bytes, own.downlink_frame_bytes) == (
        row["uplink_frame_bytes"],
        row["downlink_frame_bytes"],
    )
    assert full.method == "full" and full.uplink_frame_bytes > 4 * own.uplink_frame_bytes


@pytest.mark.parametrize("shared", [True, False])
def test_what_a_cluster_has_of_its_own_is_in_a_plan(tmp_path: Any, shared: bool) -> None:
    asked = {"strategy__name": "clustered", "strategy__clustered__shared": shared, "run__rounds": 1}
    run(tiny(**asked), tmp_path / "run", Watch())
    [own] = fl.plan(tiny(**asked), methods=["own"]).rows
    billed = rows(tmp_path / "run" / "cameras.jsonl")[0]["downlink_frame_bytes"]
    assert own.downlink_frame_bytes == billed > own.uplink_frame_bytes / 2


def test_an_update_that_grows_with_who_sends_is_planned_for_all_who_do(tmp_path: Any) -> None:
    asked = {"strategy__name": "flora", "run__rounds": 1}
    run(tiny(**asked), tmp_path / "run", Watch())
    [own] = fl.plan(tiny(**asked), methods=["own"]).rows
    [billed] = {row["downlink_frame_bytes"] for row in rows(tmp_path / "run" / "cameras.jsonl")}
    assert own.downlink_frame_bytes == billed


def test_each_rank_of_a_fleet_has_its_own_row(tmp_path: Any) -> None:
    asked = {"adapter__rank": "1, 3", "run__rounds": 1}
    run(tiny(**asked), tmp_path / "run", Watch())
    found = fl.plan(tiny(**asked), methods=["own"]).rows
    assert [row.method for row in found] == ["own r=1", "own r=3"]
    billed = {row["uplink_frame_bytes"] for row in rows(tmp_path / "run" / "cameras.jsonl")} - {0}
    assert [row.uplink_frame_bytes for row in found] == sorted(billed)


def test_an_update_is_a_reply_up_and_an_update_down() -> None:
    up, down, row = NB1.up(2_000), NB1.down(3_000), a_row(NB1, 2_000, 3_000)
    assert row.packets == up.packets + down.packets and row.bytes_on_air == up.bytes_on_air + down.bytes_on_air
    assert row.energy_radio_j == pytest.approx(up.energy_j + down.energy_j) and row.energy_compute_j == 20
    assert row.cost_year == pytest.approx(200 * 365.25 / 7 * 0.5 * row.bytes_on_air / 1e6)


def test_a_battery_lasts_until_updates_and_sleep_have_emptied_it() -> None:
    row = a_row(NB1)
    daily_j = (row.energy_radio_j + 20) / 7 + 86_400 * NB1.sleep_w
    assert row.battery_days == pytest.approx(5 * 3_600 / daily_j)
    assert a_row(NB1, battery=Battery(5.0, solar_wh=1.0)).battery_days == math.inf
    assert Battery(5.0, self_discharge=0.1).days(0) == pytest.approx(3652.5)
    assert a_row(replace(DR0, device_class="C")).battery_days < 6  # its receiver never sleeps


def test_a_battery_s_days_are_not_known_where_its_link_s_power_is_not() -> None:
    row = a_row(Link("pigeon", uplink_kbit_s=0.01, downlink_kbit_s=0.02, duty_cycle=1.0, source="RFC 1149"))
    assert math.isnan(row.battery_days)
    plan = fl.plan(tiny(), methods=["own"])
    told = replace(plan, rows=(row, replace(row, battery_days=math.inf))).as_dict()["rows"]
    assert [(one["battery_days"], one["battery_for_ever"], one["energy_radio_j"]) for one in told] == [
        (None, False, None),
        (None, True, None),
    ]


def test_a_method_that_is_not_there_is_an_error_and_no_method_that_does_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"got 'lora-d'\. Did you mean 'lora-c'"):
        fl.plan(tiny(), methods=["own", "lora-d"])


def test_what_a_duty_cycle_does_not_allow_is_said() -> None:
    row = a_row(DR0, 400_000, 400_000)
    assert not row.possible and row.air_share > 1
    assert re.search(
        r"impossible: an update takes [\d.]+ days under the duty cycle of 1.0%, and with 1 a week it has 7",
        row.problems[0],
    )
    assert a_row(DR0, 400, 400).possible
    assert a_row(DR0, 4_000, 4_000).base_stations == math.ceil(200 * DR0.down(4_000).station_s / (7 * 86_400) / 0.01)
    assert "arrives whole" in a_row(replace(DR0, loss=0.3)).problems[0]


def test_a_base_station_of_class_c_sends_updates_and_acknowledgements_in_sub_bands_of_their_own() -> None:
    c, week_s = replace(DR0, device_class="C", attempts=1, confirmed=True), 7 * 86_400
    for up, down in ((4_000, 400), (400, 40_000)):
        answers_s = 200 * math.ceil(up / 48) * time_on_air_s(12, 12, 125_000, checksum=False)
        updates_s = 200 * c.down(down).station_s
        needed = max(math.ceil(answers_s / week_s / 0.01), math.ceil(updates_s / week_s / 0.1))
        row = a_row(c, up, down)
        assert row.base_stations == needed > 1 and row.station_share == pytest.approx((answers_s + updates_s) / week_s)
        one_band = math.ceil((answers_s + updates_s) / week_s / 0.1)
        assert a_row(replace(c, sub_bands="g3"), up, down).base_stations == one_band


def test_all_methods_stand_on_all_links_and_what_does_not_fit_is_left_out_by_name() -> None:
    found = fl.plan(tiny(), cameras=3, links=["all"], methods=["own", "filter-atoms"], price_per_mb=0.5)
    assert len(found.rows) == 2 * 12 and found.terms.cameras == 3
    read = json.loads(json.dumps(found.as_dict()))
    assert read["rows"][0]["method"] == "own" and read["own"].startswith("lora-c r=2")
    console = Console(record=True, width=80)
    console.print(*plan_tables(found))
    assert "…" not in console.export_text()


@pytest.mark.parametrize(
    "wrong",
    [{"updates_week": 0.0}, {"cameras": 0}, {"cameras": 2.5}, {"cameras": True}, {"price_per_mb": math.inf}],
    ids=str,
)
def test_a_plan_is_for_some_cameras_some_updates_and_a_price(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="A plan is for a whole number of cameras, at least one"):
        fl.plan(tiny(), **wrong)


@pytest.mark.parametrize(
    ("links", "are"),
    [("wifi", ["wifi"]), (["all", "wifi"], [*LINKS.names]), (["wifi", "wifi", "lte-m"], ["wifi", "lte-m"])],
    ids=str,
)
def test_a_link_is_named_alone_or_in_a_list_and_all_beside_others(links: str | list[str], are: list[str]) -> None:
    found = fl.plan(tiny(), methods="own", links=links, cameras=np.int64(3))
    assert [row.link for row in found.rows] == are and {row.method for row in found.rows} == {"own"}
    assert found.terms.cameras == 3


def test_the_pages_example_is_what_the_command_prints() -> None:
    from typer.testing import CliRunner

    from fed_lorac.cli import app

    page = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
    command = re.search(r"^fed-lorac (plan quickstart .*--cameras 200.*)$", page, re.MULTILINE)
    assert command is not None
    printed = CliRunner(env={"COLUMNS": "80"}).invoke(app, command[1].split())
    assert printed.exit_code == 0, printed.output
    shown = page.split("```text\n")[1].split("```")[0]
    assert [line.rstrip() for line in shown.splitlines()] == [line.rstrip() for line in printed.stdout.splitlines()]
