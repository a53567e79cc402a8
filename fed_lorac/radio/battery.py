"""A battery: how long it lasts. Knows watt hours and joules; not what takes them."""

import math
from dataclasses import dataclass

__all__ = ["DAY_S", "Battery"]

DAY_S = 86_400.0
_WH_J = 3_600.0
_YEAR_DAYS = 365.25


@dataclass(frozen=True)
class Battery:
    """A battery of so many watt hours, the share of them that a year takes by itself, and what the sun brings a day."""

    capacity_wh: float
    self_discharge: float = 0.0
    solar_wh: float = 0.0

    def days(self, joules_a_day: float) -> float:
        """Days from full to empty; infinite where the sun brings as much as is taken, nan where that is not known."""
        if math.isnan(joules_a_day):
            return math.nan
        capacity_j = self.capacity_wh * _WH_J
        taken_j = joules_a_day + capacity_j * self.self_discharge / _YEAR_DAYS - self.solar_wh * _WH_J
        return capacity_j / taken_j if taken_j > 0 else math.inf

    def share(self, joules: float) -> float:
        """The share of a full battery that so many joules are."""
        return joules / (self.capacity_wh * _WH_J)
