"""LoRa on the air: how long a packet takes, and what each region allows. Knows spreading factors and tables of the
standard; not messages.

Source: Semtech AN1200.13, LoRa Modem Designer's Guide; LoRaWAN 1.0.4, section 3, physical message formats; LoRaWAN
Regional Parameters RP002-1.0.4, EU863-870 and US902-928; ETSI EN 300 220-2; FCC 47 CFR 15.247.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["EMPTY_PACKET_BYTES", "PACKET_BYTES", "REGIONS", "SUB_BANDS", "DataRate", "Region", "time_on_air_s"]

PACKET_BYTES = 13
"""Beside the payload: MHDR 1, DevAddr 4, FCtrl 1, FCnt 2, FPort 1, MIC 4 (LoRaWAN 1.0.4, section 4)."""

EMPTY_PACKET_BYTES = 12
"""A packet without payload, which has no FPort."""

_PREAMBLE_SYMBOLS = 8  # RP002, both regions
_CODING_RATE = 1  # 4/5, LoRaWAN's


def time_on_air_s(packet_bytes: int, spreading_factor: int, bandwidth_hz: int, *, checksum: bool = True) -> float:
    """Seconds that a packet of the physical layer is on the air, with explicit header (AN1200.13):

        T_sym = 2^SF / BW
        n_pay = 8 + max(ceil((8 PL - 4 SF + 28 + 16 CRC - 20 IH) / (4 (SF - 2 DE))) (CR + 4), 0)
        T     = (n_pre + 4.25 + n_pay) T_sym

    with PL bytes, CRC = 1 with the `checksum` that LoRaWAN's packets up have, IH = 0, and DE = 1 where a symbol takes
    more than 16 ms.
    """
    symbol_s = float(2**spreading_factor) / bandwidth_hz
    slow = int(symbol_s > 0.016)
    bits = 8 * packet_bytes - 4 * spreading_factor + 28 + 16 * checksum
    payload = 8 + max(math.ceil(bits / (4 * (spreading_factor - 2 * slow))) * (_CODING_RATE + 4), 0)
    return (_PREAMBLE_SYMBOLS + 4.25 + payload) * symbol_s


@dataclass(frozen=True)
class DataRate:
    """A data rate: spreading factor, bandwidth, its rate as the standard rounds it, and the largest payload, without
    and with room for a repeater."""

    spreading_factor: int
    bandwidth_hz: int
    kbit_s: float
    most_bytes: int
    most_bytes_repeater: int

    def time_on_air_s(self, packet_bytes: int, *, up: bool) -> float:
        """Seconds of a packet, header and integrity code of LoRaWAN included in its bytes; down it has no checksum of
        the physical layer."""
        return time_on_air_s(packet_bytes, self.spreading_factor, self.bandwidth_hz, checksum=up)

    @property
    def window_s(self) -> float:
        """How long a receiver listens for a packet that does not come: five symbols find a preamble (AN1200.13)."""
        return 5.0 * float(2**self.spreading_factor) / self.bandwidth_hz


@dataclass(frozen=True)
class Region:
    """What a region allows: data rates up and down, which one answers in the first window, and the second window's.

    `duty`: whether sub-bands have duty cycles. `dwell_s`: the longest packet on a channel of 125 kHz; 0: any.
    """

    up: Mapping[int, DataRate]
    down: Mapping[int, DataRate]
    first_window: Mapping[int, int]
    second_window: int
    duty: bool
    dwell_s: float


SUB_BANDS: dict[str, float] = {"g": 0.01, "g1": 0.01, "g2": 0.001, "g3": 0.1, "g4": 0.01}
"""Sub-bands of EU868 -> share of an hour: 865-868, 868-868.6 (the three channels that every network has), 868.7-869.2,
869.4-869.65 and 869.7-870 MHz (ETSI EN 300 220-2; ERC Recommendation 70-03, annex 1)."""

_EU868 = {
    0: DataRate(12, 125_000, 0.25, 51, 51),
    1: DataRate(11, 125_000, 0.44, 51, 51),
    2: DataRate(10, 125_000, 0.98, 51, 51),
    3: DataRate(9, 125_000, 1.76, 115, 115),
    4: DataRate(8, 125_000, 3.125, 242, 222),
    5: DataRate(7, 125_000, 5.47, 242, 222),
}
_US915_UP = {
    0: DataRate(10, 125_000, 0.98, 11, 11),
    1: DataRate(9, 125_000, 1.76, 53, 53),
    2: DataRate(8, 125_000, 3.125, 125, 125),
    3: DataRate(7, 125_000, 5.47, 242, 222),
    4: DataRate(8, 500_000, 12.5, 242, 222),
}
_US915_DOWN = {
    8: DataRate(12, 500_000, 0.98, 53, 33),
    9: DataRate(11, 500_000, 1.76, 129, 109),
    10: DataRate(10, 500_000, 3.9, 242, 222),
    11: DataRate(9, 500_000, 7.0, 242, 222),
    12: DataRate(8, 500_000, 12.5, 242, 222),
    13: DataRate(7, 500_000, 21.9, 242, 222),
}
REGIONS: dict[str, Region] = {
    "EU868": Region(_EU868, _EU868, {k: k for k in _EU868}, second_window=0, duty=True, dwell_s=0.0),
    "US915": Region(
        _US915_UP, _US915_DOWN, {0: 10, 1: 11, 2: 12, 3: 13, 4: 13}, second_window=8, duty=False, dwell_s=0.4
    ),
}
