"""Cellular links: NB-IoT, LTE-M, LTE category 1 and a good cell of 4G. Knows their numbers, each with its source.

A number that no standard fixes, and nobody's measurement that we know, says "assumed" in its meaning.
"""

from dataclasses import dataclass
from typing import ClassVar

from fed_lorac.radio.ip import IpLink
from fed_lorac.runtime.settings import setting, with_default

__all__ = ["LTE_4G", "LTE_CAT_1", "LTE_M", "NB1", "NB2", "CellularIot", "Lte4g", "LteCat1", "LteM", "NbIot"]

REPETITIONS = {"normal": 1, "robust": 32, "extreme": 128}
"""Coverage -> how many times everything is sent: coverage enhancement levels 0, 1 and 2 (3GPP TS 36.331), whose
repetitions the operator sets; here up to 32 and up to 128 (TS 36.211 allows 128 for NB-IoT's uplink)."""


@dataclass(frozen=True)
class CellularIot(IpLink):
    """NB-IoT and LTE-M: where the signal is weak, everything is repeated.

    Powers are those of 3GPP TR 45.820, section 5.4: 23 dBm with an amplifier of 45 %.
    """

    coverage: str = setting("normal", "how weak the signal is, by coverage level", choices=tuple(REPETITIONS))
    repetitions: int = setting(0, "repetitions of everything; 0: 1, 32 or 128, by coverage", least=0, most=2048)
    transmit_w: float = setting(0.5, "watts while it transmits; 3GPP TR 45.820", least=0)
    receive_w: float = setting(0.09, "watts while it receives; 3GPP TR 45.820", least=0)
    tail_w: float = setting(0.09, "watts in the tail; as while it receives, without connected DRX", least=0)
    sleep_w: float = setting(1.5e-5, "watts in power saving mode; 3GPP TR 45.820", least=0)

    @property
    def times(self) -> int:
        """How many times everything is sent."""
        return self.repetitions or REPETITIONS[self.coverage]


@dataclass(frozen=True)
class NbIot(CellularIot):
    """[fleet.nb-iot]: CoAP over DTLS and UDP."""

    packet_bytes: int = setting(1024, "largest part of a message in a packet; CoAP's largest block, RFC 7959", least=1)
    header_bytes: int = setting(
        69, "headers of each packet: IPv4 20, UDP 8, DTLS 1.2 with CCM-8 29 (RFC 6655), CoAP 12", least=0
    )
    ack_bytes: int = setting(67, "acknowledgement of each packet: the same, CoAP 10", least=0)
    session_up_bytes: int = setting(100, "signalling up of a session, DTLS resumed (RFC 9146); assumed", least=0)
    session_down_bytes: int = setting(100, "signalling down of a session; assumed", least=0)
    session_s: float = setting(
        1.0, "seconds to find the cell: MIB-NB comes every 0.64 s (TS 36.331); the rest assumed", least=0
    )
    tail_s: float = setting(20.0, "seconds until the network lets the radio go; 0 with release assistance", least=0)

    table: ClassVar[str] = "nb-iot"


@dataclass(frozen=True)
class LteM(CellularIot):
    """[fleet.lte-m]: TLS over TCP, a session resumed for each message."""

    packet_bytes: int = setting(
        1284, "largest part of a message in a packet; 3GPP's packets have 1,358 bytes (TS 23.060, annex C)", least=1
    )
    header_bytes: int = setting(
        74, "headers of each packet: IPv4 20, TCP with timestamps 32, TLS 1.3 22 (RFC 8446)", least=0
    )
    ack_bytes: int = setting(26, "acknowledgement of each packet: 52 for every second one (RFC 5681)", least=0)
    session_up_bytes: int = setting(600, "TCP's and TLS 1.3's handshake up, resumed; assumed", least=0)
    session_down_bytes: int = setting(500, "TCP's and TLS 1.3's handshake down, resumed; assumed", least=0)
    session_s: float = setting(0.3, "seconds to find the cell and connect; assumed", least=0)
    tail_s: float = setting(10.0, "seconds until the network lets the radio go; assumed", least=0)

    table: ClassVar[str] = "lte-m"


@dataclass(frozen=True)
class LteCat1(IpLink):
    """[fleet.lte-cat-1]: TLS over TCP, as over LTE-M.

    Powers and tail: Huang et al. 2012, MobiSys, table 4, 1.288 W and 0.438 W for each Mbit/s up, 0.052 W down.
    """

    session_s: float = setting(0.26, "seconds to connect; Huang et al. 2012", least=0)
    tail_s: float = setting(11.6, "seconds until the network lets the radio go; Huang et al. 2012", least=0)
    transmit_w: float = setting(3.48, "watts while it transmits, at 5 Mbit/s; Huang et al. 2012", least=0)
    receive_w: float = setting(1.81, "watts while it receives, at 10 Mbit/s; Huang et al. 2012", least=0)
    tail_w: float = setting(1.06, "watts in the tail; Huang et al. 2012", least=0)
    sleep_w: float = setting(0.02, "watts while it is idle; Huang et al. 2012: 0.594 W for 43 ms of 1.28 s", least=0)

    table: ClassVar[str] = "lte-cat-1"


@dataclass(frozen=True)
class Lte4g(LteCat1):
    """[fleet.4g]: a good cell; powers at the median rates of Huang et al. 2012."""

    transmit_w: float = with_default(LteCat1, "transmit_w", 3.76, "watts at 5.64 Mbit/s up; Huang et al. 2012")
    receive_w: float = with_default(LteCat1, "receive_w", 1.95, "watts at 12.74 Mbit/s down; Huang et al. 2012")

    table: ClassVar[str] = "4g"


NB1 = NbIot("nb-iot-nb1", 62.0, 26.0, 1.0, "3GPP TS 36.306 Release 13, category NB1, multi-tone uplink")
NB2 = NbIot("nb-iot-nb2", 159.0, 127.0, 1.0, "3GPP TS 36.306 Release 14, category NB2, uplink")
LTE_M = LteM("lte-m", 375.0, 300.0, 1.0, "3GPP TS 36.306 Release 13, category M1, half duplex uplink")
LTE_CAT_1 = LteCat1("lte-cat-1", 5_000.0, 10_000.0, 1.0, "3GPP TS 36.306 Release 8, category 1, uplink")
LTE_4G = Lte4g("4g", 20_000.0, 60_000.0, 1.0, "typical LTE rates of a good cell, not a standard's peak")
