"""LoRaWAN: messages as fragments, in a region's data rates. Knows time on air and classes; not cameras.

- Up, a message is cut into packets of the data rate's largest payload. Each goes `repetitions` times, or, `confirmed`,
  until its acknowledgement has come: 1 / s times on average with s = (1 - loss)^2, as both must get through; of at most
  n `attempts` (1 - (1 - s)^n) / s times. The packet is there with probability 1 - loss^n: n times none came.
- Down in class A, the server may speak only in the two windows after a packet of the camera's, so each fragment costs
  an empty packet up. The camera's own fragments do not serve: an update is there only when all have replied. Of at most
  n attempts one is heard with probability 1 - (1 - s)^n, in class C, where nothing is asked, 1 - loss^n.
- Down in class C, the receiver is always on, in the second window's data rate, and the server speaks when it likes.
- Between two packets a camera of class A waits until its second window has passed, two seconds. Class C does not, and
  what its receiver takes is in `standing_w`, not in a message's energy.

- By multicast (LoRa Alliance TS005) each fragment goes once, in class C's window, to all cameras. One that asks for it
  again sends an empty packet, as any other up, and is sent it as anything else.
- A base station is held to the sub-band that it sends in: the first window has the channel of the packet up, the second
  one of its own.

Not counted: packets of other cameras that collide (`loss` is for them), joining, and MAC commands.
"""

from dataclasses import dataclass
from typing import ClassVar

from fed_lorac.errors import ConfigError
from fed_lorac.radio.link import Crossing, Link, fragments, spread_s
from fed_lorac.radio.lora import EMPTY_PACKET_BYTES, PACKET_BYTES, REGIONS, SUB_BANDS, DataRate, Region
from fed_lorac.runtime.settings import check_settings, items, setting

__all__ = ["DR0", "DR1", "DR2", "DR3", "DR4", "DR5", "LoraWan"]

_SOURCE = (
    "LoRaWAN 1.0.4 and Regional Parameters RP002-1.0.4; time on air: Semtech AN1200.13; duty cycle: ETSI EN 300 220-2"
)
_FIRST_WINDOW_S, _SECOND_WINDOW_S = 1.0, 2.0  # RECEIVE_DELAY1 and 2, RP002
_SECOND_SUB_BAND = "g3"  # of EU868: 869.525 MHz, RP002


@dataclass(frozen=True)
class LoraWan(Link):
    """[fleet.lorawan]: region, class, and how packets are repeated.

    Raises:
        ConfigError: the region has no such data rate, a setting of one region under the other, or a sub-band twice.
    """

    data_rate: int = 0
    region: str = setting("EU868", "the region's data rates and limits", choices=tuple(REGIONS))
    sub_bands: str = setting(
        "g1", "sub-bands of EU868 that are used in turn, each with a duty cycle", choices=tuple(SUB_BANDS), listed=True
    )
    device_class: str = setting("A", "A hears after it has sent, C hears always", choices=("A", "C"))
    confirmed: bool = setting(False, "whether each packet up is acknowledged, and sent again until it is")
    repetitions: int = setting(1, "how many times each unconfirmed packet is sent", least=1, most=15)
    loss: float = setting(0.0, "share of packets that are lost, either way", least=0, most=0.9)
    attempts: int = setting(
        0,
        "most transmissions of a packet that goes until it has come: confirmed up, and down; 0: without end",
        least=0,
        most=15,
    )
    fragment_bytes: int = setting(
        3, "bytes of each fragment that number it; 3: LoRa Alliance TS004; 0: the frame counter", least=0, most=8
    )
    repeater: bool = setting(False, "whether packets leave room for a repeater")
    second_window: int = setting(
        -1, "data rate of the second window, where class C hears; -1: EU868's 0, US915's 8", least=-1, most=13
    )
    transmit_w: float = setting(
        0.109, "watts while it transmits; 33.1 mA at 3.3 V: SX1276 at 14 dBm, in RAK4260's data sheet", least=0
    )
    receive_w: float = setting(0.038, "watts while it receives; 11.5 mA at 3.3 V: SX1276 data sheet, table 6", least=0)
    standby_w: float = setting(0.0053, "watts between packets and windows; 1.6 mA at 3.3 V: the same", least=0)
    sleep_w: float = setting(6.6e-7, "watts while it sleeps; 0.2 uA at 3.3 V: the same", least=0)

    table: ClassVar[str] = "lorawan"

    def __post_init__(self) -> None:
        check_settings(self)
        region = REGIONS[self.region]
        if self.data_rate not in region.up:
            raise ConfigError(
                f"{self.region} has the data rates {', '.join(map(str, region.up))} on the way up; got {self.name}. "
                "Choose another link, or another fleet.lorawan.region."
            )
        if self.second_window not in (-1, *region.down):
            raise ConfigError(
                f"{self.region} has the data rates {', '.join(map(str, region.down))} on the way down; got "
                f"fleet.lorawan.second_window = {self.second_window}. Set it to one of these, or to -1."
            )
        if not region.duty and self.sub_bands != LoraWan.sub_bands:
            raise ConfigError(
                f"Sub-bands have duty cycles in EU868; got fleet.lorawan.sub_bands = {self.sub_bands!r} in "
                f"{self.region}. Remove it."
            )
        if self.confirmed and self.repetitions != LoraWan.repetitions:
            raise ConfigError(
                f"Confirmed packets go until their acknowledgement comes; got fleet.lorawan.repetitions = "
                f"{self.repetitions} and confirmed = true. Remove it; attempts limits confirmed packets."
            )
        bands = items(self.sub_bands)
        if len(once := dict.fromkeys(bands)) < len(bands):
            raise ConfigError(
                f"A sub-band has one duty cycle, however often it is named; got fleet.lorawan.sub_bands = "
                f'{self.sub_bands!r}. Write "{", ".join(once)}".'
            )
        duty = min(1.0, sum(SUB_BANDS[name] for name in bands)) if region.duty else 1.0
        rates = {"uplink_kbit_s": self._up.kbit_s, "downlink_kbit_s": self._down.kbit_s, "duty_cycle": duty}
        for name, value in rates.items():
            object.__setattr__(self, name, value)
        super().__post_init__()

    @property
    def _region(self) -> Region:
        return REGIONS[self.region]

    @property
    def _up(self) -> DataRate:
        return self._region.up[self.data_rate]

    @property
    def _second(self) -> DataRate:
        own = self.second_window
        return self._region.down[self._region.second_window if own < 0 else own]

    @property
    def _first(self) -> DataRate:
        return self._region.down[self._region.first_window[self.data_rate]]

    @property
    def _down(self) -> DataRate:
        """The data rate of updates: the first window's, or where class C hears."""
        return self._second if self.device_class == "C" else self._first

    @property
    def station_duty_cycle(self) -> float:
        """Of the window in which updates go down: the first has the sub-bands of the way up, the second its own."""
        second = self._region.duty and self.device_class == "C"
        return SUB_BANDS[_SECOND_SUB_BAND] if second else self.duty_cycle

    @property
    def standing_w(self) -> float:
        """Watts while no message crosses: class C never sleeps."""
        return self.receive_w if self.device_class == "C" else self.sleep_w

    def _most(self, rate: DataRate) -> int:
        return rate.most_bytes_repeater if self.repeater else rate.most_bytes

    @property
    def no_multicast(self) -> str:
        """Class A has none."""
        if self.device_class == "C":
            return ""
        return 'in class A a camera hears only after it has sent (fleet.lorawan.device_class = "C" hears always)'

    def up(self, n_bytes: int) -> Crossing:
        """Fragments up, each with what it waits for: its acknowledgement, or two windows that stay empty."""
        return self._sends(*self._cut(n_bytes, up=True))

    def _sends(self, packets: int, once: int, once_s: float) -> Crossing:
        """So many packets up, whose bytes and seconds on air are these where each goes once."""
        answered = self._comes((1 - self.loss) ** 2)
        times = answered / (1 - self.loss) ** 2 if self.confirmed else self.repetitions
        arrives = self._comes(1 - self.loss) if self.confirmed else 1 - self.loss**self.repetitions
        heard = answered * packets if self.confirmed else 0
        acknowledged = heard / (1 - self.loss)  # so many acknowledgements are sent for those that come through
        acknowledgement_s = self._first.time_on_air_s(EMPTY_PACKET_BYTES, up=False)
        return self._crossing(
            packets=packets,
            sent=times * once + EMPTY_PACKET_BYTES * acknowledged,
            transmit_s=times * once_s,
            heard_s=heard * acknowledgement_s,
            heard=heard,
            missed=times * packets - heard,
            station_s=acknowledged * acknowledgement_s,
            arrives=arrives**packets,
        )

    def _cut(self, n_bytes: int, *, up: bool) -> tuple[int, int, float]:
        """A message in packets: how many, and all their bytes and seconds on air where each goes once."""
        rate = self._up if up else self._down
        cut = [(n, PACKET_BYTES + size) for n, size in fragments(n_bytes, self._most(rate), self.fragment_bytes)]
        once_s = sum(count * rate.time_on_air_s(size, up=up) for count, size in cut)
        return sum(count for count, _ in cut), sum(count * size for count, size in cut), once_s

    def _comes(self, each: float) -> float:
        """Probability that one of the `attempts` succeeds, each by itself with this one."""
        return 1 - (1 - each) ** self.attempts if self.attempts else 1.0

    def down(self, n_bytes: int) -> Crossing:
        """Fragments down, in class A each after an empty packet up; what is lost, either way, goes again."""
        packets, once, heard_s = self._cut(n_bytes, up=False)
        asked = self.device_class == "A"
        comes = self._comes((1 - self.loss) ** 2 if asked else 1 - self.loss)
        again = comes / (1 - self.loss)  # so many are sent for those that come through
        asks = again / (1 - self.loss) * packets if asked else 0.0
        return self._crossing(
            packets=packets,
            sent=again * once + asks * EMPTY_PACKET_BYTES,
            transmit_s=asks * self._up.time_on_air_s(EMPTY_PACKET_BYTES, up=True),
            heard_s=comes * heard_s,
            heard=comes * packets if asked else 0,
            missed=max(0.0, asks - comes * packets),
            station_s=again * heard_s,
            arrives=comes**packets,
        )

    def multicast(self, n_bytes: int) -> Crossing:
        """Fragments down, once each; the receiver of class C is on anyway."""
        packets, once, heard_s = self._cut(n_bytes, up=False)
        return self._crossing(
            packets=packets,
            sent=once,
            transmit_s=0.0,
            heard_s=heard_s,
            heard=0,
            missed=0.0,
            station_s=heard_s,
            arrives=(1 - self.loss) ** packets,
        )

    def repair(self, n_bytes: int) -> Crossing:
        """A packet up that asks, and the fragments down."""
        if not n_bytes:
            return Crossing()
        asks = self._sends(1, EMPTY_PACKET_BYTES, self._up.time_on_air_s(EMPTY_PACKET_BYTES, up=True))
        return asks + self.down(n_bytes)

    def _crossing(
        self,
        *,
        packets: int,
        sent: float,
        transmit_s: float,
        heard_s: float,
        heard: float,
        missed: float,
        station_s: float,
        arrives: float,
    ) -> Crossing:
        """What the radio does: it transmits, waits for the first window, hears a packet there (`heard` times) or
        nothing in both (`missed` times)."""
        always_on = self.device_class == "C"
        empty_s = 0.0 if always_on else self._first.window_s + self._second.window_s
        listens_s = heard_s + missed * empty_s
        waits_s = heard * _FIRST_WINDOW_S + (0.0 if always_on else missed * _SECOND_WINDOW_S)
        active_s = transmit_s + waits_s + listens_s
        listening_j = 0.0 if always_on else listens_s * self.receive_w + waits_s * self.standby_w
        return Crossing(
            packets=packets,
            bytes_on_air=round(sent),
            transmit_s=transmit_s,
            receive_s=listens_s,
            takes_s=max(spread_s(transmit_s, self.duty_cycle), active_s),
            busy_s=max(transmit_s / self.duty_cycle, active_s),
            station_s=station_s,
            energy_j=transmit_s * self.transmit_w + listening_j,
            arrives=arrives,
        )


DR0, DR1, DR2, DR3, DR4, DR5 = (LoraWan(f"lorawan-dr{k}", 1, 1, 1, _SOURCE, data_rate=k) for k in range(6))
"""One for each data rate; rates and duty cycle follow from the region."""
