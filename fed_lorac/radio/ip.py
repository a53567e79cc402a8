"""Links that carry IP: a session a message, packets with headers and acknowledgements, and a tail. Knows packets,
rates and watts; not what makes up a header, which stands where each link's numbers are.

    transmit_s = repetitions (again (n + packets header) + session up) 8 / rate up, and the same down
    again      = (1 - loss^attempts) / (1 - loss), the mean transmissions of a packet of at most so many; 1 / (1 - loss)
    arrives    = (1 - loss^attempts)^packets; 1 where a packet goes until it has come
    E          = P_transmit transmit_s + P_receive (receive_s + session_s + packets packet_s) + P_tail tail_s

the form of 3GPP TR 45.820, section 5.4, and of Sorensen et al. 2021, arXiv 2106.13286. What comes back of a message up
is acknowledgements, and the other way round.

By multicast (SC-PTM, 3GPP TS 36.300, section 15) a camera finds the cell and listens, without a session: it transmits
nothing, and there is no tail.

Not counted: headers below IP, which the standards' rates leave out too, and round trips that nothing is sent in.
"""

import math
from dataclasses import dataclass

from fed_lorac.radio.link import Crossing, Link
from fed_lorac.runtime.settings import setting

__all__ = ["IpLink"]


@dataclass(frozen=True)
class IpLink(Link):
    """A link that carries IP packets; its numbers are settings."""

    packet_bytes: int = setting(1284, "largest part of a message in a packet", least=1)
    header_bytes: int = setting(74, "headers of each packet, from IP to the encryption's", least=0)
    ack_bytes: int = setting(26, "acknowledgement of each packet, headers included", least=0)
    session_up_bytes: int = setting(600, "signalling up that a message begins and ends with", least=0)
    session_down_bytes: int = setting(500, "signalling down that a message begins and ends with", least=0)
    session_s: float = setting(0.0, "seconds of listening before a message can begin", least=0)
    packet_s: float = setting(0.0, "seconds that each packet waits for the air, the receiver on", least=0)
    tail_s: float = setting(0.0, "seconds that the radio stays on after a message", least=0)
    rate_share: float = setting(1.0, "share of the peak rates that the camera gets", above=0, most=1)
    loss: float = setting(0.0, "share of packets that are lost, and sent again", least=0, most=0.9)
    attempts: int = setting(
        0, "most transmissions of a packet, after which the message is lost; 0: until it has come", least=0, most=32
    )
    transmit_w: float = setting(0.0, "watts while it transmits", least=0)
    receive_w: float = setting(0.0, "watts while it receives", least=0)
    tail_w: float = setting(0.0, "watts in the tail", least=0)
    sleep_w: float = setting(0.0, "watts while it sleeps", least=0)

    @property
    def times(self) -> int:
        """How many times the physical layer sends everything, so that it is heard far away."""
        return 1

    def up(self, n_bytes: int) -> Crossing:
        """Packets up, acknowledgements down."""
        packets, carried = self._cut(n_bytes)
        return self._crossing(packets, carried, packets * self.ack_bytes)

    def down(self, n_bytes: int) -> Crossing:
        """Packets down, acknowledgements up."""
        packets, carried = self._cut(n_bytes)
        return self._crossing(packets, packets * self.ack_bytes, carried)

    def multicast(self, n_bytes: int) -> Crossing:
        """Packets down, once for all."""
        packets, carried = self._cut(n_bytes)
        if not packets:
            return Crossing()
        station_s = self._air_s(carried, self.downlink_kbit_s)
        receive_s = self.session_s + packets * self.packet_s + station_s
        return Crossing(
            packets=packets,
            bytes_on_air=carried,
            receive_s=receive_s,
            takes_s=receive_s,
            busy_s=receive_s,
            station_s=station_s,
            energy_j=receive_s * self.receive_w,
            arrives=(1 - self.loss) ** packets,
        )

    def _cut(self, n_bytes: int) -> tuple[int, int]:
        """How many packets, and their bytes."""
        packets = math.ceil(n_bytes / self.packet_bytes)
        return packets, n_bytes + packets * self.header_bytes

    def _crossing(self, packets: int, up: int, down: int) -> Crossing:
        if not packets:
            return Crossing()
        comes = 1 - self.loss**self.attempts if self.attempts else 1.0
        again = comes / (1 - self.loss)
        sent, heard = again * up + self.session_up_bytes, again * down + self.session_down_bytes
        transmit_s = self._air_s(sent, self.uplink_kbit_s)
        station_s = self._air_s(heard, self.downlink_kbit_s)
        receive_s = self.session_s + again * packets * self.packet_s + station_s
        return Crossing(
            packets=packets,
            bytes_on_air=round(sent + heard),
            transmit_s=transmit_s,
            receive_s=receive_s,
            takes_s=transmit_s + receive_s,
            busy_s=transmit_s + receive_s,
            station_s=station_s,
            energy_j=transmit_s * self.transmit_w + receive_s * self.receive_w + self.tail_s * self.tail_w,
            arrives=comes**packets,
        )

    def _air_s(self, n_bytes: float, kbit_s: float) -> float:
        return 8 * self.times * n_bytes / (1_000 * kbit_s * self.rate_share)
