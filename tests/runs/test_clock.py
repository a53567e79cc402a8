"""Laws of simulated time: what a turn and a message take, who is late, who waits, and what a run says of it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import rows, tiny

from fed_lorac.config import names
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.fleet.clock import Clock, images_seen
from fed_lorac.fleet.fleet import Camera
from fed_lorac.radio.link import Crossing, Link, crossed
from fed_lorac.registry import LINKS
from fed_lorac.reporting.target import reached
from fed_lorac.reporting.watch import Watch
from fed_lorac.seeds import stream
from fed_lorac.simulation.engines import run
from fed_lorac.training.batches import shuffled_batches

LINK_NAMES = st.sampled_from(LINKS.names)
BYTES = st.integers(0, 10**8)


PEAK = Link("peak", 5.47, 5.47, 0.01, "a test's: LoRaWAN's fastest rate without packets")


def a_link(name: str) -> Link:
    found: Link = PEAK if name == "peak" else LINKS.make(name)
    return found


def a_clock(
    over: str = "lte-m", *, images: int = 100, speed: float = 1.0, image_time_s: float = 0.0, round_s: float = 0.0
) -> Clock:
    """The clock of one camera."""
    camera = Camera(0, "fog", 3, np.arange(images), np.arange(1), {}, over, speed)
    seen = images_seen(images, batch_size=30, epochs=2, steps=0)
    return Clock((camera,), {over: a_link(over)}, [seen * image_time_s / speed].__getitem__, round_s)


def a_clock_of(*links: str, round_s: float = 0.0) -> Clock:
    """The clock of one camera a link, whose training takes no time."""
    cameras = [Camera(k, "fog", 3, np.arange(1), np.arange(1), {}, over) for k, over in enumerate(links)]
    return Clock(cameras, {over: a_link(over) for over in links}, lambda camera: 0.0, round_s)


def heard(over: str, n: int, *cameras: int) -> tuple[list[int], Crossing]:
    """Cameras that are each sent a message of so many bytes."""
    return [*cameras], a_link(over).down(n)


@given(LINK_NAMES, BYTES, st.booleans())
def test_a_message_takes_its_air_time_at_least_and_the_duty_cycles_time_at_most(name: str, n: int, up: bool) -> None:
    found = crossed(a_link(name), n, up=up)
    assert found.transmit_s + found.receive_s <= found.takes_s * (1 + 1e-9) or a_link(name).duty_cycle < 1
    assert found.transmit_s <= found.takes_s * (1 + 1e-9) and found.takes_s <= found.busy_s * (1 + 1e-9)


def test_a_message_beyond_an_hours_share_goes_hour_by_hour() -> None:
    def sends_s(n: int) -> float:
        return PEAK.up(n).takes_s

    assert sends_s(24_615) == pytest.approx(36, abs=0.01)  # one per cent of an hour: 36 s, 24,615 bytes
    assert sends_s(2 * 24_615) == pytest.approx(3_600 + 36, abs=0.01)
    assert sends_s(24_615 + 6_838) == pytest.approx(3_600 + 10, abs=0.01)


@given(images=st.integers(1, 200), batch=st.integers(1, 60), epochs=st.integers(1, 4), steps=st.integers(0, 30))
def test_images_seen_are_those_of_the_batches(images: int, batch: int, epochs: int, steps: int) -> None:
    def endless() -> Any:
        while True:
            yield from shuffled_batches(images, batch, stream(0, "batches"))

    batches, wanted = endless(), steps or epochs * len(list(shuffled_batches(images, batch, stream(0, "batches"))))
    seen = sum(len(next(batches)) for _ in range(wanted))
    assert images_seen(images, batch_size=batch, epochs=epochs, steps=steps) == seen


@given(down=BYTES, up=BYTES, speed=st.floats(0.1, 10), image_s=st.floats(0, 1))
def test_a_reply_takes_hearing_training_and_sending(down: int, up: int, speed: float, image_s: float) -> None:
    clock, over = a_clock(speed=speed, image_time_s=image_s), a_link("lte-m")
    trip = clock.trip(0, down, up)
    assert trip.compute_s == pytest.approx(200 * image_s / speed)
    assert trip.reply_s == pytest.approx(over.down(down).takes_s + trip.compute_s + over.up(up).takes_s)
    assert trip.sent and not trip.late  # without fleet.round_s nobody is
    assert clock.end([0], [heard("lte-m", 1000, 0)]) == pytest.approx(trip.reply_s + over.down(1000).takes_s)


def test_a_camera_whose_duty_cycle_keeps_it_silent_waits_its_turn_and_counts_again() -> None:
    clock = a_clock("peak", round_s=600.0)
    up = 20_000  # 29 s on the air, 2,925 s of the clock
    found = []
    for _ in range(12):
        trip = clock.trip(0, 0, up)
        found.append((trip.late, trip.sent))
        clock.end([] if trip.late else [0])
    on_time = [number for number, (late, _) in enumerate(found) if not late]
    assert on_time == [0, 5, 10]
    assert all(sent != late for late, sent in found)  # what waits is not sent, and so not billed
    assert clock.now_s >= 2 * PEAK.up(up).busy_s


def test_class_a_asks_for_each_fragment_and_so_hears_only_once_its_air_is_free() -> None:
    clock, over = a_clock("lorawan-dr5"), a_link("lorawan-dr5")
    first = clock.trip(0, 0, 20_000)
    took_s = clock.end([0], [heard("lorawan-dr5", 1_000, 0)])
    assert took_s == pytest.approx(over.up(20_000).busy_s + over.down(1_000).takes_s)
    assert took_s > first.reply_s + over.down(1_000).takes_s
    again = clock.trip(0, 0, 20_000)
    assert again.reply_s == pytest.approx(over.down(1_000).busy_s - over.down(1_000).takes_s + over.up(20_000).takes_s)


@pytest.mark.parametrize("part", ["idle", "not counted", "counted"])
def test_who_hears_an_update_has_its_air_taken_whatever_its_part_in_the_round(part: str) -> None:
    clock, over = a_clock_of("lte-m", "lorawan-dr5"), a_link("lorawan-dr5")
    first_s, up, update = clock.trip(0, 0, 200_000).reply_s, over.up(200), over.down(5_000)
    if part != "idle":
        assert clock.trip(1, 0, 200).reply_s == up.takes_s < first_s
    took_s = clock.end([0, 1] if part == "counted" else [0], [heard("lte-m", 5_000, 0), heard("lorawan-dr5", 5_000, 1)])
    begins_s = first_s if part == "idle" else max(first_s, up.busy_s)
    lasts = begins_s + update.takes_s if part == "counted" else first_s + a_link("lte-m").down(5_000).takes_s
    assert took_s == pytest.approx(lasts)
    waits_s = begins_s + update.transmit_s / 0.01 - took_s  # its silence after asking, by the duty cycle's own law
    assert clock.trip(1, 0, 200).reply_s == pytest.approx(waits_s + up.takes_s) and waits_s > 0


def test_an_update_goes_to_all_once_the_last_counted_reply_is_there() -> None:
    links = ("wifi", "lte-m", "nb-iot-nb1")
    clock = a_clock_of(*links)
    last_s = max([clock.trip(k, 0, 20_000).reply_s for k in range(3)][:2])
    took_s = clock.end([0, 1], [heard(over, 20_000, k) for k, over in enumerate(links)])
    assert took_s == pytest.approx(last_s + max(a_link(over).down(20_000).takes_s for over in links[:2]))


def test_cameras_that_hear_together_hear_as_each_would_alone() -> None:
    links = ["lte-m", *["lorawan-dr5"] * 4]
    together, alone = a_clock_of(*links), a_clock_of(*links)
    for clock in (together, alone):
        clock.trip(0, 0, 1_000)
        clock.trip(2, 0, 2_000)
    took_s = together.end([0], [heard("lorawan-dr5", 300, 1, 2, 3)])
    assert alone.end([0], [heard("lorawan-dr5", 300, k) for k in (1, 2, 3)]) == took_s
    assert together.state() == alone.state()
    replies_s = [together.trip(k, 0, 2_000).reply_s for k in range(5)]
    assert replies_s == [alone.trip(k, 0, 2_000).reply_s for k in range(5)]
    assert replies_s[4] == pytest.approx(a_link("lorawan-dr5").up(2_000).takes_s)  # who was sent nothing has free air
    assert replies_s[2] > replies_s[1] == replies_s[3] > replies_s[4]


def test_time_goes_on_in_a_round_of_which_no_reply_counts() -> None:
    clock = a_clock_of("lte-m", "nb-iot-nb1", "wifi")
    replies_s = [clock.trip(k, 0, 9_000).reply_s for k in range(2)]
    assert clock.end([]) == max(replies_s) == clock.now_s > 0  # they were waited for, as no round's length is set
    clock.trip(0, 0, 9_000)
    assert clock.end([0]) == pytest.approx(replies_s[0])
    assert a_clock_of("lte-m").end([]) == 0  # nobody sent anything
    assert a_clock_of("lte-m", round_s=60.0).end([]) == 60


def test_a_reply_that_is_begun_in_time_and_ends_too_late_is_sent_in_vain() -> None:
    clock = a_clock("nb-iot-nb1", round_s=60.0)
    trip = clock.trip(0, 0, 1_000_000)  # 129 s
    assert trip.late and trip.sent
    assert clock.end([]) == 60.0
    again = clock.trip(0, 0, 1_000)  # its air is taken until 129 s, so this waits
    assert again.late and not again.sent
    clock.end([])
    assert not clock.trip(0, 0, 1_000).late


def test_a_slow_processor_is_late() -> None:
    limits: dict[str, Any] = {"image_time_s": 0.1, "round_s": 30.0}
    assert not a_clock(speed=1, **limits).trip(0, 0, 1_000).late
    assert a_clock(speed=0.5, **limits).trip(0, 0, 1_000).late


@given(st.lists(st.integers(1, 50_000), min_size=1, max_size=12), st.integers(0, 11))
def test_a_clock_goes_on_as_if_it_had_never_stopped(messages: list[int], at: int) -> None:
    def play(clock: Clock, some: list[int]) -> list[float]:
        found = []
        for up in some:
            trip = clock.trip(0, 10, up)
            found += [trip.reply_s, clock.end([] if trip.late else [0], [heard("lorawan-dr5", 10, 0)])]
        return found

    limits: dict[str, Any] = {"over": "lorawan-dr5", "round_s": 500.0}
    whole, first, second = a_clock(**limits), a_clock(**limits), a_clock(**limits)
    begun = play(first, messages[:at])
    second.restore(**json.loads(json.dumps(first.state())))
    assert play(whole, messages) == begun + play(second, messages[at:])


# The fleet


def test_drawn_links_are_each_cameras_own_and_of_the_asked_classes() -> None:
    asked: dict[str, Any] = {
        "fleet__link": "4g, lte-m, nb-iot-nb1",
        "fleet__link_assignment": "random",
        "fleet__images": 5,
    }
    few, many = (
        [
            camera.link
            for camera in build_experiment(tiny(**asked, fleet__cameras=n, fleet__eval_images=5)).fleet.cameras
        ]
        for n in (20, 40)
    )
    assert many[:20] == few and set(many) == {"4g", "lte-m", "nb-iot-nb1"}
    assert few != [("4g", "lte-m", "nb-iot-nb1")[k % 3] for k in range(20)]


def test_speeds_are_assigned_round_robin() -> None:
    fleet = build_experiment(tiny(fleet__devices="limited", speeds="1, 2.5")).fleet
    assert [camera.speed for camera in fleet.cameras] == [1.0, 2.5, 1.0, 2.5]


@pytest.mark.parametrize("wrong", ["0", "-1", "fast", "nan", "inf", "1, 0.0"])
def test_a_speed_is_a_number_above_0(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"fleet\.limited\.speeds"):
        tiny(fleet__devices="limited", speeds=wrong)


def test_link_assignments_have_their_names() -> None:
    assert names.LINK_ASSIGNMENTS == ("round_robin", "random")


# Runs

SLOW: dict[str, Any] = {
    "run__rounds": 3,
    "fleet__per_round": 4,
    "fleet__link": "lte-m, lorawan-dr0",
    "compute_watt": 2.0,
    "fleet__devices": "limited",
    "round_s": 100,
    "image_time_s": 0.01,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cameras of four are on a link that takes far too long."""
    out = tmp_path_factory.mktemp("slow") / "run"
    run(tiny(**SLOW), out, Watch())
    return out


def test_who_is_late_is_left_out_and_who_sent_in_vain_is_billed(folder: Path) -> None:
    for row in rows(folder / "cameras.jsonl"):
        late = row["link"] == "lorawan-dr0"
        assert (row["status"], row["reason"]) == (("left out", "late") if late else ("counted", ""))
        began = row["round"] == 1
        assert bool(row["uplink_message_bytes"]) == (not late or began)
        assert (row["reply_s"] > 100) == late and row["compute_s"] == pytest.approx(0.5)
        over = a_link(row["link"])
        up, down = over.up(row["uplink_frame_bytes"]), over.down(row["downlink_frame_bytes"])
        assert (row["uplink_bytes_on_air"], row["downlink_bytes_on_air"]) == (up.bytes_on_air, down.bytes_on_air)
        assert row["energy_radio_j"] == pytest.approx(up.energy_j + down.energy_j)
        assert row["energy_compute_j"] == pytest.approx(2 * row["compute_s"])
        assert (row["uplink_air_time_s"], row["elapsed_s"]) == (up.transmit_s, up.busy_s)
        assert row["downlink_time_s"] == down.takes_s > 0
    for row in rows(folder / "rounds.jsonl"):
        assert row["cameras_counted"] == 2 and row["reasons"] == {"late": 2}


def test_a_round_takes_as_long_as_its_slowest_counted_camera(folder: Path) -> None:
    cameras = rows(folder / "cameras.jsonl")
    for row in rows(folder / "rounds.jsonl"):
        counted = [c for c in cameras if c["round"] == row["round"] and c["status"] == "counted"]
        slowest = max(c["compute_s"] + c["elapsed_s"] + c["downlink_time_s"] for c in counted)
        assert row["round_time_s"] == pytest.approx(slowest)
        assert slowest > max(c["reply_s"] for c in counted)


@pytest.mark.parametrize("more", [{}, {"fleet__deal": "overlapping", "evaluate_cameras": 1}], ids=["all", "sample"])
def test_a_runs_times_are_those_of_its_bytes_played_camera_by_camera(tmp_path: Path, more: dict[str, Any]) -> None:
    links = ["lte-m", "lorawan-dr5"] * 2
    run(tiny(fleet__link=", ".join(links[:2]), fleet__per_round=1, run__rounds=5, **more), tmp_path / "run", Watch())
    cameras, free_s, now_s, waited = rows(tmp_path / "run/cameras.jsonl"), [0.0] * 4, 0.0, Counter[str]()
    for row in rows(tmp_path / "run/rounds.jsonl"):
        its = [one for one in cameras if one["round"] == row["round"]]
        (sender,) = (one for one in its if one["status"] == "counted")
        (update,) = {one["downlink_frame_bytes"] for one in its}
        k, up = sender["camera"], a_link(sender["link"]).up(sender["uplink_frame_bytes"])
        begins_s = max(now_s, free_s[k])
        waited[sender["link"]] += begins_s > now_s
        free_s[k], sent_s, heard_s = begins_s + up.busy_s, begins_s + up.takes_s, [0.0] * 4
        assert sender["reply_s"] == pytest.approx(sent_s - now_s)
        for camera, name in enumerate(links):  # all hear it, drawn or not, measured or not
            down = a_link(name).down(update)
            from_s = max(sent_s, free_s[camera]) if name == "lorawan-dr5" else sent_s
            heard_s[camera] = from_s + down.takes_s
            if name == "lorawan-dr5":
                free_s[camera] = from_s + down.busy_s
        assert row["round_time_s"] == pytest.approx(heard_s[k] - now_s)
        now_s = heard_s[k]
    assert waited["lorawan-dr5"] and not waited["lte-m"]


def test_a_run_whose_replies_are_all_lost_takes_its_time(tmp_path: Path) -> None:
    lossy = {"fleet__link": "lorawan-dr5", "fleet__lorawan__loss": 0.9, "run__rounds": 2}
    run(tiny(**lossy), tmp_path / "run", Watch())
    cameras = rows(tmp_path / "run/cameras.jsonl")
    for row in rows(tmp_path / "run/rounds.jsonl"):
        last_s = max(one["reply_s"] or 0 for one in cameras if one["round"] == row["round"])
        assert row["cameras_counted"] == 0 and row["round_time_s"] == pytest.approx(last_s) and last_s > 0


def test_the_summary_has_simulated_time_and_days_on_each_link(folder: Path) -> None:
    from rich.console import Console

    from fed_lorac.reporting.tables import show_run

    found, ledger = json.loads((folder / "summary.json").read_text()), rows(folder / "rounds.jsonl")
    assert found["simulated_s"] == pytest.approx(sum(row["round_time_s"] for row in ledger))
    assert set(found["days"]) == {"lte-m", "lorawan-dr0"}
    slow, fast = found["days"]["lorawan-dr0"], found["days"]["lte-m"]
    cameras = rows(folder / "cameras.jsonl")
    for name, days in (("lte-m", fast), ("lorawan-dr0", slow)):
        link, own = a_link(name), [row for row in cameras if row["link"] == name]
        sent = [link.up(row["uplink_frame_bytes"]).transmit_s for row in own if row["uplink_frame_bytes"]]
        mean = sum(sent) / len({row["camera"] for row in own})
        assert days["adapter"] == pytest.approx(mean / link.duty_cycle / 86_400)
    assert slow["full"] > slow["adapter"] > 1_000 * fast["adapter"]
    console = Console(record=True, width=160)
    show_run(console, found)
    told = console.export_text()
    assert "with the duty cycle, lorawan-dr0" in told
    assert "with the duty cycle, lte-m" not in told  # no silence is owed there


def test_each_link_s_air_time_is_that_of_its_own_cameras(tmp_path: Path) -> None:
    settings = {"fleet__link": "lorawan-dr5, lte-m", "adapter__rank": "1, 4", "adapter__alpha": 8, "run__rounds": 1}
    run(tiny(**settings), tmp_path / "run", Watch())
    found = json.loads((tmp_path / "run/summary.json").read_text())["air_time_s"]
    for name, air in found.items():
        own = [row for row in rows(tmp_path / "run/cameras.jsonl") if row["link"] == name]
        assert air["adapter"] == pytest.approx(sum(row["uplink_air_time_s"] for row in own) / len(own)) and air["full"]
    sizes = {
        row["link"]: row["uplink_frame_bytes"] for row in rows(tmp_path / "run/cameras.jsonl") if row["num_examples"]
    }
    assert sizes["lte-m"] > 2 * sizes["lorawan-dr5"]


def test_a_runs_energy_is_its_cameras(folder: Path) -> None:
    found, cameras = json.loads((folder / "summary.json").read_text())["energy"], rows(folder / "cameras.jsonl")
    ledger = rows(folder / "rounds.jsonl")
    for name in ("energy_radio_j", "energy_compute_j", "uplink_bytes_on_air", "downlink_bytes_on_air"):
        for row in ledger:
            assert row[name] == pytest.approx(sum(c[name] for c in cameras if c["round"] == row["round"]))
    assert found["radio_j"] == pytest.approx(sum(row["energy_radio_j"] for row in ledger) / 4)
    assert found["full_fp32_radio_j"] > found["radio_j"] and found["full_fp32_battery_days"] < found["battery_days"]


def test_what_a_target_took_is_summed_up_to_the_round_that_reached_it(folder: Path) -> None:
    ledger = rows(folder / "rounds.jsonl")
    first = ledger[0]
    assert reached(0.01, ledger) == {
        "accuracy": 0.01,
        "rounds": 1,
        "bytes": first["uplink_frame_bytes"] + first["downlink_frame_bytes"],
        "full_bytes": first["full_uplink_frame_bytes"] + first["full_downlink_frame_bytes"],
        "full_fp32_bytes": first["full_uplink_frame_bytes"] + first["full_downlink_frame_bytes"],
        "simulated_s": first["round_time_s"],
        "energy_j": first["energy_radio_j"] + first["energy_compute_j"],
        "full_fp32_energy_j": first["full_fp32_energy_radio_j"] + first["energy_compute_j"],
    }
    known = ("rounds", "bytes", "full_bytes", "full_fp32_bytes", "simulated_s", "energy_j", "full_fp32_energy_j")
    nothing = dict.fromkeys(known)
    assert reached(0.99, ledger) == {"accuracy": 0.99} | nothing


def test_a_resumed_run_keeps_simulated_time(folder: Path, tmp_path: Path) -> None:
    import shutil

    from fed_lorac.config import resumed_config

    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    for kept in (copy / "checkpoints").glob("round-*.safetensors"):
        if "000003" in kept.name:
            kept.unlink()
    run(resumed_config(copy), copy, Watch(), resume=True)
    for name in ("cameras.jsonl", "rounds.jsonl"):
        assert rows(copy / name, "seconds") == rows(folder / name, "seconds")
