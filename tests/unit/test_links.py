"""Laws of air time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_lorac.errors import ConfigError
from fed_lorac.fleet.links import LINKS, air_time_s, days_to_send, elapsed_s, link

names = st.sampled_from(sorted(LINKS))


def test_rates_are_those_of_the_methods_table() -> None:
    assert {name: row.uplink_kbit_s for name, row in LINKS.items() if not name.startswith("lorawan")} == {
        "nb-iot-nb1": 62,
        "nb-iot-nb2": 159,
        "lte-m": 375,
        "lte-cat-1": 5_000,
        "4g": 20_000,
    }
    assert (link("lorawan-dr0").uplink_kbit_s, link("lorawan-dr5").uplink_kbit_s) == (0.25, 5.47)


@pytest.mark.parametrize(("dr", "spreading"), list(enumerate(range(12, 6, -1))))
def test_lorawan_rates_follow_from_spreading_factor_and_bandwidth(dr: int, spreading: int) -> None:
    chirps = spreading * 125_000 / 2**spreading * 4 / 5  # Semtech AN1200.22: SF * BW / 2^SF * code rate 4/5, in bit/s
    assert link(f"lorawan-dr{dr}").uplink_kbit_s == pytest.approx(chirps / 1_000, rel=0.2)


def test_only_lorawan_has_a_duty_cycle() -> None:
    assert {row.duty_cycle for name, row in LINKS.items() if name.startswith("lorawan")} == {0.01}
    assert {row.duty_cycle for name, row in LINKS.items() if not name.startswith("lorawan")} == {1.0}


def test_an_hour_of_lte_m_carries_169_megabytes() -> None:
    assert air_time_s(168_750_000, link("lte-m")) == 3_600


def test_a_duty_cycle_stretches_a_minute_on_air_to_a_hundred() -> None:
    slow = link("lorawan-dr0")
    assert air_time_s(1_875, slow) == 60
    assert elapsed_s(1_875, slow) == pytest.approx(6_000)
    assert days_to_send(1_875, slow) == pytest.approx(6_000 / 86_400)


@given(names, st.integers(0, 10**12), st.integers(0, 10**12))
def test_time_is_additive_in_bytes(name: str, a: int, b: int) -> None:
    over = link(name)
    assert math.isclose(air_time_s(a + b, over), air_time_s(a, over) + air_time_s(b, over))


@given(names, st.integers(0, 10**12))
def test_the_clock_is_never_ahead_of_the_air(name: str, n_bytes: int) -> None:
    assert elapsed_s(n_bytes, link(name)) >= air_time_s(n_bytes, link(name)) >= 0


@pytest.mark.parametrize(
    ("wrong", "near"), [("lora-wan-dr5", "lorawan-dr5"), ("LTE-M", "lte-m"), ("nb-iot", "nb-iot-nb")]
)
def test_an_unknown_link_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"Did you mean '{near}"):
        link(wrong)


@pytest.mark.parametrize("wrong", ["", "carrier pigeon"])
def test_an_unknown_link_without_a_similar_name_lists_all_links(wrong: str) -> None:
    with pytest.raises(ConfigError, match=rf"one of lorawan-dr0, .*; got '{wrong}'\.$"):
        link(wrong)


def test_every_link_has_a_source() -> None:
    assert all(row.name == name and row.source for name, row in LINKS.items())
