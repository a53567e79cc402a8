"""Laws of links: names, time on the air, packets, duty cycles, sessions and power."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_lorac.config import load_config
from fed_lorac.errors import ConfigError
from fed_lorac.radio.cellular import LTE_M, NB1, REPETITIONS
from fed_lorac.radio.link import Crossing, Link, fragments
from fed_lorac.radio.lora import PACKET_BYTES, REGIONS, time_on_air_s
from fed_lorac.radio.lorawan import DR0, DR2, DR5, LoraWan
from fed_lorac.radio.wifi import WIFI
from fed_lorac.registry import LINKS

ALL: dict[str, Link] = {name: LINKS.make(name) for name in LINKS.names}
links = st.sampled_from([*ALL.values(), *(replace(one, device_class="C") for one in (DR0, DR5))])
sizes = st.integers(0, 10**7)


def lorawan(name: str = "lorawan-dr0", **settings: Any) -> LoraWan:
    """A link as a config builds it."""
    found = load_config(None, {"fleet.link": name, **{f"fleet.lorawan.{key}": v for key, v in settings.items()}})
    (link,) = found.fleet.links().values()
    assert isinstance(link, LoraWan)
    return link


# All links


def test_rates_are_those_of_the_methods_table() -> None:
    assert {name: row.uplink_kbit_s for name, row in ALL.items() if not name.startswith("lorawan")} == {
        "nb-iot-nb1": 62,
        "nb-iot-nb2": 159,
        "lte-m": 375,
        "lte-cat-1": 5_000,
        "4g": 20_000,
        "wifi": 65_000,
    }
    assert (DR0.uplink_kbit_s, DR5.uplink_kbit_s) == (0.25, 5.47)


def test_every_link_has_a_source_and_says_its_power() -> None:
    for name, row in ALL.items():
        assert row.name == name and row.source
        assert row.transmit_w > row.receive_w > row.standing_w >= 0


@given(links, sizes, sizes)
def test_more_bytes_never_take_less(link: Link, a: int, b: int) -> None:
    for less, more in (
        (link.up(min(a, b)), link.up(max(a, b))),
        (link.down(min(a, b)), link.down(max(a, b))),
    ):
        assert all(x <= y for key, x in vars(less).items() if (y := vars(more)[key]) is not None and key != "arrives")


@given(links, sizes)
def test_the_air_is_never_faster_than_its_rate(link: Link, n: int) -> None:
    up, down = link.up(n), link.down(n)
    assert up.transmit_s * 1_000 * link.uplink_kbit_s * 1.02 >= 8 * n  # the standard rounds its rates
    assert down.station_s * 1_000 * link.downlink_kbit_s * 1.02 >= 8 * n
    assert up.bytes_on_air >= n and down.bytes_on_air >= n
    assert up.busy_s * link.duty_cycle >= up.transmit_s * (1 - 1e-9)


@pytest.mark.parametrize("link", ALL.values(), ids=lambda link: link.name)
def test_nothing_to_send_costs_nothing(link: Link) -> None:
    assert link.up(0) == link.down(0) == Crossing()


@given(st.integers(0, 10_000), st.integers(9, 300), st.integers(0, 8))
def test_fragments_carry_each_byte_once_and_none_is_too_long(n: int, most: int, header: int) -> None:
    cut = list(fragments(n, most, header))
    packets = sum(count for count, _ in cut)
    assert sum(count * size for count, size in cut) == n + header * packets * (n > most)
    assert all(0 < size <= most for count, size in cut if count)
    assert packets == (math.ceil(n / most) if n <= most else math.ceil(n / (most - header)))


@pytest.mark.parametrize(
    ("wrong", "near"), [("lora-wan-dr5", "lorawan-dr5"), ("LTE-M", "lte-m"), ("nb-iot", "nb-iot-nb")]
)
def test_an_unknown_link_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"Did you mean '{near}"):
        LINKS.make(wrong)


@pytest.mark.parametrize("wrong", ["", "carrier pigeon"])
def test_an_unknown_link_without_a_similar_name_lists_all_links(wrong: str) -> None:
    with pytest.raises(ConfigError, match=rf"one of lorawan-dr0, .*; got '{wrong}'\.$"):
        LINKS.make(wrong)


def test_a_link_of_ones_own_whose_power_is_not_known_says_so() -> None:
    own = Link("own", 1.0, 2.0, 1.0, "made up")
    assert own.up(125).transmit_s == 1 and math.isnan(own.up(125).energy_j)
    assert replace(own, transmit_w=0.5).up(125).energy_j == 0.5


# LoRa


@pytest.mark.parametrize(
    ("payload", "spreading", "bandwidth", "milliseconds"),
    [
        # The Things Network's calculator, 20 bytes of application payload (bertrik/ttn-gateway-collector's test).
        (32, 8, 125_000, 133.6),
        (32, 9, 125_000, 246.8),
        (32, 10, 125_000, 452.6),
        (32, 11, 125_000, 987.1),
        (32, 12, 125_000, 1810.4),
        # tanupoo/lorawan_toa's own tests.
        (64, 12, 125_000, 2793.472),
        (255, 7, 500_000, 99.904),
        # loratools.nl, whole milliseconds, as lorareg's tests have them.
        (7, 12, 125_000, 991.5),
        (51, 11, 125_000, 1314.5),
        (51, 10, 125_000, 616.5),
        (51, 9, 125_000, 328.5),
    ],
)
def test_time_on_air_is_that_of_published_calculators(
    payload: int, spreading: int, bandwidth: int, milliseconds: float
) -> None:
    assert 1_000 * time_on_air_s(payload, spreading, bandwidth) == pytest.approx(milliseconds, abs=0.5)


@pytest.mark.parametrize("checksum", [True, False])
def test_time_on_air_is_that_of_another_library(checksum: bool) -> None:
    other = pytest.importorskip("pamoja.lora")
    for sf in range(7, 13):
        for bandwidth in (125_000, 250_000, 500_000):
            for size in (0, 1, 12, 13, 51, 64, 128, 255):
                theirs = other.link(sf, bandwidth, crc=checksum).airtime_us(size)
                assert 1e6 * time_on_air_s(size, sf, bandwidth, checksum=checksum) == pytest.approx(theirs, abs=1)


@pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS)
def test_a_data_rates_rate_follows_from_spreading_factor_and_bandwidth(region: Any) -> None:
    for row in (*region.up.values(), *region.down.values()):
        chirps = row.spreading_factor * row.bandwidth_hz / 2**row.spreading_factor * 4 / 5  # AN1200.22, bit/s
        assert row.kbit_s == pytest.approx(chirps / 1_000, rel=0.2)


def test_no_packet_of_us915_exceeds_the_dwell_time() -> None:
    region = REGIONS["US915"]
    for row in region.up.values():
        if row.bandwidth_hz == 125_000:
            assert row.time_on_air_s(PACKET_BYTES + row.most_bytes, up=True) <= region.dwell_s
            assert row.time_on_air_s(PACKET_BYTES + row.most_bytes + 4, up=True) > region.dwell_s


# LoRaWAN


def test_a_message_is_cut_as_the_methods_page_reckons() -> None:
    slow, fast = (replace(one, fragment_bytes=0).up(37_384) for one in (DR0, DR5))
    assert (slow.packets, round(slow.transmit_s), round(slow.busy_s / 3_600)) == (734, 2_049, 57)
    assert (fast.packets, round(fast.transmit_s), round(fast.busy_s / 3_600, 1)) == (155, 62, 1.7)


def test_lorawan_has_the_duty_cycle_of_its_sub_bands_and_nothing_else_has_one() -> None:
    assert {row.duty_cycle for name, row in ALL.items() if name.startswith("lorawan")} == {0.01}
    assert {row.duty_cycle for name, row in ALL.items() if not name.startswith("lorawan")} == {1.0}
    assert lorawan(sub_bands="g1, g3").duty_cycle == pytest.approx(0.11)
    assert lorawan(sub_bands="g2").up(100).busy_s == pytest.approx(10 * DR0.up(100).busy_s)
    assert lorawan(region="US915").duty_cycle == 1


def test_class_a_asks_for_each_fragment_down_and_class_c_does_not() -> None:
    a, c = DR2, replace(DR2, device_class="C", second_window=2)
    packets = a.down(500).packets
    assert packets == c.down(500).packets == math.ceil(500 / 48)
    assert a.down(500).transmit_s == pytest.approx(packets * time_on_air_s(12, 10, 125_000))
    assert c.down(500).transmit_s == 0 and c.down(500).station_s == a.down(500).station_s
    assert a.down(500).takes_s > c.down(500).takes_s
    assert a.standing_w == a.sleep_w and c.standing_w == c.receive_w


@pytest.mark.parametrize("link", [DR0, DR2, DR5], ids=lambda link: link.name)
def test_packets_down_have_no_checksum_and_packets_up_have_one(link: LoraWan) -> None:
    def symbols(size: int, crc: int) -> float:
        """Of a packet; another way to AN1200.13's: blocks of 4 (SF - 2 DE) bits, each of five symbols."""
        bits, block = 8 * size - 4 * spreading + 28 + 16 * crc, 4 * (spreading - 2 * (spreading > 10))
        return 20.25 + 5 * max(-(-bits // block), 0)

    spreading = {DR0: 12, DR2: 10, DR5: 7}[link]
    symbol_s, one = 2**spreading / 125_000, 30  # a packet of so many bytes
    c = replace(link, device_class="C", second_window=link.data_rate)
    assert link.up(one).transmit_s == pytest.approx(symbols(13 + one, 1) * symbol_s)
    for found in (
        link.down(one).station_s,
        c.down(one).station_s,
        c.multicast(one).station_s,
        c.multicast(one).takes_s,
    ):
        assert found == pytest.approx(symbols(13 + one, 0) * symbol_s)
    assert link.down(one).transmit_s == pytest.approx(symbols(12, 1) * symbol_s)  # the packet that asks for it
    assert replace(link, confirmed=True).up(one).station_s == pytest.approx(symbols(12, 0) * symbol_s)


def test_a_base_station_is_held_to_the_sub_band_of_the_window_in_which_updates_go_down() -> None:
    g1, g3, free = 0.01, 0.1, 1.0  # ERC Recommendation 70-03: 868.0-868.6 and 869.4-869.65 MHz
    assert DR0.station_duty_cycle == g1 and lorawan(sub_bands="g2").station_duty_cycle == 0.001
    assert lorawan(device_class="C").station_duty_cycle == g3
    assert lorawan(device_class="C", sub_bands="g2").station_duty_cycle == g3
    for device_class in "AC":
        assert lorawan(device_class=device_class, region="US915").station_duty_cycle == free
    assert all(row.station_duty_cycle == row.duty_cycle for row in ALL.values())


def test_confirmed_packets_go_until_packet_and_acknowledgement_have_come() -> None:
    plain, confirmed = replace(DR5, loss=0.2), replace(DR5, loss=0.2, confirmed=True)
    assert confirmed.up(5_000).transmit_s == pytest.approx(plain.up(5_000).transmit_s / 0.8**2)
    assert confirmed.up(5_000).arrives == 1
    assert plain.up(5_000).arrives == pytest.approx(0.8 ** plain.up(5_000).packets)
    twice = replace(plain, repetitions=2)
    assert twice.up(5_000).transmit_s == pytest.approx(2 * plain.up(5_000).transmit_s)
    assert twice.up(5_000).arrives == pytest.approx(0.96 ** twice.up(5_000).packets)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("lorawan-dr5", {"region": "US915"}, r"US915 has the data rates 0, 1, 2, 3, 4 on the way up; got lorawan-dr5"),
        ("lorawan-dr0", {"second_window": 8}, r"EU868 has the data rates 0, .*second_window = 8"),
        ("lorawan-dr0", {"region": "US915", "sub_bands": "g3"}, r"Sub-bands have duty cycles in EU868"),
        ("lorawan-dr0", {"loss": 1.0}, r"fleet\.lorawan\.loss must be"),
        ("lorawan-dr0", {"confirmed": True, "repetitions": 3}, r"acknowledgement comes; got .*repetitions = 3"),
        ("lorawan-dr0", {"sub_bands": "g1, g3,g1"}, r"one duty cycle.*got fleet.*'g1, g3,g1'\. Write \"g1, g3\"\."),
    ],
)
def test_settings_that_do_not_go_together_are_refused(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        lorawan(name, **settings)


# IP


def test_a_session_and_a_tail_cost_the_same_for_any_message() -> None:
    def energy_j(n: int) -> float:
        return NB1.up(n).energy_j

    whole = NB1.packet_bytes
    assert energy_j(3 * whole) - energy_j(2 * whole) == pytest.approx(energy_j(2 * whole) - energy_j(whole))
    assert energy_j(1) > NB1.tail_s * NB1.tail_w + NB1.session_s * NB1.receive_w
    assert replace(NB1, tail_s=0).up(1).energy_j == pytest.approx(energy_j(1) - 1.8)


@pytest.mark.parametrize("coverage", REPETITIONS)
def test_coverage_repeats_all_that_is_on_the_air(coverage: str) -> None:
    weak = replace(LTE_M, coverage=coverage)
    assert weak.up(10_000).transmit_s == pytest.approx(REPETITIONS[coverage] * LTE_M.up(10_000).transmit_s)
    assert weak.up(10_000).bytes_on_air == LTE_M.up(10_000).bytes_on_air


def test_bytes_on_the_air_are_packets_headers_acknowledgements_and_signalling() -> None:
    packets = math.ceil(10_000 / 1426)
    beside = packets * (112 + 45) + 600 + 500
    assert WIFI.up(10_000).bytes_on_air == WIFI.down(10_000).bytes_on_air == 10_000 + beside
    assert replace(WIFI, loss=0.5).up(10_000).bytes_on_air == 2 * (10_000 + beside - 1_100) + 1_100


def test_settings_of_a_kind_are_those_of_all_its_links() -> None:
    asked = {"fleet.link": "nb-iot-nb1, lte-m, nb-iot-nb2", "fleet.nb-iot.tail_s": 0, "fleet.lte-m.loss": 0.1}
    found = load_config(None, asked).fleet.links()
    assert [found[name].tail_s for name in ("nb-iot-nb1", "nb-iot-nb2", "lte-m")] == [0, 0, 10]  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"\[fleet\.nb-iot\] is for fleet\.link a link of nb-iot"):
        load_config(None, {"fleet.nb-iot.tail_s": 0})
