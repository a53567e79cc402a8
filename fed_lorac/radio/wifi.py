"""Wi-Fi: one camera near an access point. Knows its numbers, each with its source."""

from dataclasses import dataclass
from typing import ClassVar

from fed_lorac.radio.ip import IpLink
from fed_lorac.runtime.settings import setting

__all__ = ["WIFI", "Wifi"]


@dataclass(frozen=True)
class Wifi(IpLink):
    """[fleet.wifi]: TLS over TCP on 802.11n, joined anew for each message. Nobody else is on the air."""

    packet_bytes: int = setting(1426, "largest part of a message in a packet, of Ethernet's 1,500", least=1)
    header_bytes: int = setting(
        112, "headers of each packet: 802.11 26, checksum 4, LLC 8, IPv4 20, TCP 32, TLS 1.3 22", least=0
    )
    ack_bytes: int = setting(45, "acknowledgement of each packet: 90 for every second one (RFC 5681)", least=0)
    session_s: float = setting(
        1.0, "seconds to join the access point; 0.3 to 1 in Espressif's ESP8266 data sheet", least=0
    )
    packet_s: float = setting(
        0.000176,
        "seconds of each packet beside its bytes: DIFS 28 us, backoff 67.5, preamble 36, SIFS 10, ACK 34 (802.11n)",
        least=0,
    )
    transmit_w: float = setting(0.82, "watts while it transmits; 248 mA at 3.3 V: ESP32 data sheet, MCS 7", least=0)
    receive_w: float = setting(0.363, "watts while it receives; 110 mA at 3.3 V: ESP32 data sheet", least=0)
    sleep_w: float = setting(3.3e-5, "watts in deep sleep; 10 uA at 3.3 V: ESP32 data sheet", least=0)

    table: ClassVar[str] = "wifi"

    @property
    def no_multicast(self) -> str:
        """A camera is not there to hear it."""
        return "a camera joins the access point for each message and sleeps in between, and TLS over TCP is for two"


WIFI = Wifi("wifi", 65_000.0, 65_000.0, 1.0, "IEEE 802.11n, 20 MHz, MCS 7, guard interval 800 ns")
