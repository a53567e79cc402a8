"""Laws of updates by multicast: one transmission a link, repairs billed, the learning untouched; a link without it
refuses it by name."""

import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from small_runs import rows, tiny

import fed_lorac as fl
from fed_lorac.config import load_config
from fed_lorac.errors import ConfigError
from fed_lorac.radio.battery import Battery
from fed_lorac.radio.cellular import LTE_M, NB1
from fed_lorac.radio.link import Crossing, Link, fragments, heard
from fed_lorac.radio.lora import time_on_air_s
from fed_lorac.radio.lorawan import DR0, DR5
from fed_lorac.registry import LINKS
from fed_lorac.reporting.plan import MethodSizes, Planned, Terms, planned
from fed_lorac.reporting.plan_table import plan_tables
from fed_lorac.reporting.tables import bytes_table
from fed_lorac.reporting.watch import Watch
from fed_lorac.seeds import stream
from fed_lorac.simulation.engines import run

FLEET = {"fleet__cameras": 6, "fleet__per_round": 4, "fleet__images": 20, "fleet__eval_images": 20}
LINKS_OF_RUN = {"fleet__link": "nb-iot-nb1, lorawan-dr5", "fleet__nb-iot__downlink": "multicast"}
SHARE = 0.5


def done(out: Path, **settings: Any) -> Path:
    run(tiny(**FLEET, **settings), out, Watch())
    return out


@pytest.fixture(scope="module")
def unicast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return done(tmp_path_factory.mktemp("unicast"), fleet__link="nb-iot-nb1, lorawan-dr5")


@pytest.fixture(scope="module")
def multicast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return done(tmp_path_factory.mktemp("multicast"), **LINKS_OF_RUN, **{"fleet__nb-iot__repair_share": SHARE})


def by_multicast(link: Link, **settings: Any) -> Link:
    return replace(link, downlink="multicast", **settings)


@given(st.integers(1, 60_000))
def test_a_multicast_message_is_its_packets_once_and_nothing_comes_back(n: int) -> None:
    packets = -(-n // NB1.packet_bytes)
    found, over_nb1_s = NB1.multicast(n), 8 * (n + packets * NB1.header_bytes) / 26_000
    assert found.bytes_on_air == n + packets * NB1.header_bytes and found.transmit_s == 0
    assert found.receive_s == pytest.approx(NB1.session_s + over_nb1_s)
    assert found.energy_j == pytest.approx(0.09 * found.receive_s) and found.energy_j < NB1.down(n).energy_j
    c = replace(DR5, device_class="C", loss=0.1)
    cut = [size for count, size in fragments(n, 51, 3) for _ in range(count)]  # class C hears at EU868's data rate 0
    assert c.multicast(n).receive_s == pytest.approx(
        sum(time_on_air_s(size + 13, 12, 125_000, checksum=False) for size in cut)
    )
    assert c.multicast(n).arrives == pytest.approx(0.9 ** len(cut)) and c.multicast(n).transmit_s == 0


@pytest.mark.parametrize("link", LINKS.names)
def test_every_link_has_multicast_or_says_why_not(link: str) -> None:
    own: Link = LINKS.make(link)
    if own.no_multicast:
        with pytest.raises(ConfigError, match=f"{link} has no multicast: {own.no_multicast[:20]}"):
            by_multicast(own)
        with pytest.raises(ConfigError, match="has no multicast"):
            load_config(None, {"fleet.link": link, f"fleet.{own.table}.downlink": "multicast"}).fleet.links()
    else:
        assert by_multicast(own).multicast(0) == own.multicast(0) == Crossing()
        assert by_multicast(own).repair(100).bytes_on_air >= own.down(100).bytes_on_air
    assert bool(own.no_multicast) == (link == "wifi" or link.startswith("lorawan"))
    assert not replace(DR0, device_class="C").no_multicast


def test_repairs_are_of_multicast_alone() -> None:
    with pytest.raises(
        ConfigError, match=r'repair_share is of cameras that hear .* lte-m has 0\.1 under downlink = "uni'
    ):
        replace(LTE_M, repair_share=0.1)
    assert by_multicast(LTE_M, repair_share=0.1).repaired(5_000) == 0.1
    lossy = by_multicast(LTE_M, loss=0.1)
    assert lossy.repaired(5_000) == pytest.approx(1 - 0.9**4)  # who loses one of four packets asks again
    assert lossy.repaired(0) == 0


def test_a_round_bills_one_transmission_a_link_and_each_repair(unicast: Path, multicast: Path) -> None:
    alone, cameras = rows(unicast / "rounds.jsonl"), rows(multicast / "cameras.jsonl")
    over = by_multicast(NB1, repair_share=SHARE)
    repairs = 0
    for before, row in zip(alone, rows(multicast / "rounds.jsonl"), strict=True):
        its = [one for one in cameras if one["round"] == row["round"]]
        asked = stream(0, "repair", row["round"]).random(6) < SHARE
        again = sum(bool(asked[one["camera"]]) for one in its if one["link"] == "nb-iot-nb1")
        (update,) = {one["downlink_frame_bytes"] for one in its}
        assert row["cameras_repaired"] == again and row["downlink_frame_bytes"] == (3 + 1 + again) * update
        assert row["unicast_downlink_frame_bytes"] == before["downlink_frame_bytes"] == 6 * update
        full = before["full_fp32_downlink_frame_bytes"]
        assert row["full_fp32_unicast_downlink_frame_bytes"] == full
        assert row["full_fp32_downlink_frame_bytes"] == full // 6 * (3 + 1 + again)
        once, repair = over.multicast(update).bytes_on_air, over.repair(update).bytes_on_air
        assert row["downlink_bytes_on_air"] == once + again * repair + 3 * DR5.down(update).bytes_on_air
        assert row["energy_radio_j"] == pytest.approx(sum(one["energy_radio_j"] for one in its))
        repairs += again
    assert repairs
    summary = json.loads((multicast / "summary.json").read_text())
    assert summary["cameras_repaired"] == repairs
    assert summary["unicast_bytes"] == json.loads((unicast / "summary.json").read_text())["total_bytes"]
    assert summary["total_bytes"] == summary["unicast_bytes"] + (repairs - 2 * 2) * update  # two copies a round saved


def test_a_camera_hears_once_and_again_where_it_asks(unicast: Path, multicast: Path) -> None:
    over, seen = by_multicast(NB1, repair_share=SHARE), Counter[bool]()
    pairs = zip(rows(unicast / "cameras.jsonl"), rows(multicast / "cameras.jsonl"), strict=True)
    for before, row in pairs:
        if row["link"] != "nb-iot-nb1":
            assert row == before
            continue
        asks = bool(stream(0, "repair", row["round"]).random(6)[row["camera"]] < SHARE)
        update, up = row["downlink_frame_bytes"], over.up(row["uplink_frame_bytes"])
        came = heard(over, update) + (heard(over, update, again=True) if asks else Crossing())
        assert row["downlink_time_s"] == pytest.approx(came.takes_s)
        assert row["energy_radio_j"] == pytest.approx(up.energy_j + came.energy_j)
        seen[asks] += 1
    assert set(seen) == {True, False}


def test_what_is_learnt_does_not_depend_on_how_it_is_sent(unicast: Path, multicast: Path) -> None:
    assert (unicast / "adapter.safetensors").read_bytes() == (multicast / "adapter.safetensors").read_bytes()


def test_every_table_says_how_updates_go_down(unicast: Path, multicast: Path) -> None:
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (unicast, multicast)]
    console = Console(record=True, width=160)
    console.print(*map(bytes_table, summaries))
    text = console.export_text()
    assert "down, unicast" in text and "down, multicast on nb-iot-nb1, unicast on lorawan-dr5" in text
    assert "by unicast or by multicast, each run as its downlink says" in fl.compare([unicast, multicast])


@pytest.mark.parametrize("strategy", ["merged", "clustered"])
def test_a_forecast_is_of_what_is_sent(strategy: str, tmp_path: Path) -> None:
    links = {"fleet__link": "nb-iot-nb1, lte-m", "fleet__lte-m__downlink": "multicast"}
    settings = {**links, "strategy__name": strategy}
    told = fl.show_fleet(tiny(**FLEET, **settings)).messages
    sent = json.loads((done(tmp_path / "run", **settings) / "summary.json").read_text())
    assert told is not None and told.total == pytest.approx(sent["total_bytes"], rel=2e-3)
    assert (told.full, told.full_fp32) == (sent["full_total_bytes"], sent["full_fp32_total_bytes"])
    assert told.sent_to == "to all cameras (multicast on lte-m, unicast on nb-iot-nb1)"


TERMS = Terms(200, 1.0, 0.5, Battery(5.0), compute_s=10.0, compute_watt=2.0, idle_watt=0.0)


def a_row(link: Link, n_bytes: int, **terms: Any) -> Planned:
    (found,) = planned([MethodSizes("some", n_bytes, n_bytes)], [link], replace(TERMS, **terms))
    return found


def test_a_plan_bills_the_update_once_and_the_mean_of_repairs() -> None:
    link, n = by_multicast(NB1, repair_share=0.1), 3_000
    row, up, once, again = a_row(link, n), link.up(n), link.multicast(n), link.repair(n)
    assert (row.downlink, row.repaired) == ("multicast", 0.1)
    assert row.energy_radio_j == pytest.approx(up.energy_j + once.energy_j + 0.1 * again.energy_j)
    fleet = once.bytes_on_air + 200 * (up.bytes_on_air + 0.1 * again.bytes_on_air)
    assert row.fleet_bytes_on_air == pytest.approx(fleet, abs=100)
    assert row.cost_year == pytest.approx(365.25 / 7 * 0.5 * row.fleet_bytes_on_air / 1e6)
    each = a_row(NB1, n)
    assert each.fleet_bytes_on_air == 200 * each.bytes_on_air > row.fleet_bytes_on_air
    assert row.battery_days > each.battery_days and row.station_share < each.station_share


@pytest.mark.parametrize("strategy", ["merged", "clustered"])
def test_a_plan_sends_each_group_its_update_once_as_a_run_does(strategy: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"strategy__name": strategy, "fleet__link": "lte-m", "run__rounds": 1}
    settings |= {"fleet__lte-m__downlink": "multicast", "fleet__corruptions": "fog, snow"}
    settings |= {"fleet__cameras": 6, "fleet__per_round": 6}
    run(tiny(**settings), tmp_path / "run", Watch())
    [row] = rows(tmp_path / "run/rounds.jsonl")
    (own,) = fl.plan(tiny(**settings), methods=["own"]).rows
    assert own.downlink_groups == (2 if strategy == "clustered" else 1)
    assert own.fleet_bytes_on_air == pytest.approx(row["uplink_bytes_on_air"] + row["downlink_bytes_on_air"], rel=2e-2)


def test_a_base_station_that_can_never_send_all_is_said() -> None:
    link = by_multicast(replace(DR0, device_class="C"))
    row = a_row(link, 40_000, updates_week=40.0)
    said = r"a base station would be sending what goes to all cameras 1\d\.\d% of the time, and is allowed 10\.0%\."
    assert any(re.search(said, problem) for problem in row.problems)
    assert not any("a base station" in problem for problem in a_row(link, 40_000, updates_week=4.0).problems)
    fits = a_row(link, 400)
    assert fits.base_stations == math.ceil(
        200 * link.up(400).station_s / (7 * 86_400) / (0.1 - link.multicast(400).station_s / (7 * 86_400)) or 1
    )


def test_a_plan_s_table_says_how_the_update_goes_down() -> None:
    plan = fl.plan(tiny(**{"fleet__lte-m__downlink": "multicast", "fleet__lte-m__repair_share": 0.02}), methods=["own"])
    console = Console(record=True, width=100)
    for part in plan_tables(plan):
        console.print(part)
    assert "lte-m: the update once for all (multicast), to 2.0% of the cameras again" in console.export_text()
