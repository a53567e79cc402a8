"""What cameras said of one model: accuracies by camera. Knows numbers; not models or messages."""

from dataclasses import dataclass, field
from statistics import fmean

__all__ = ["Measured"]


@dataclass
class Measured:
    """Accuracies by camera under one model, in its weather and in clear air."""

    weather: dict[int, float] = field(default_factory=dict)
    clean: dict[int, float] = field(default_factory=dict)

    def mean(self) -> float | None:
        """The fleet's mean, every camera alike."""
        return fmean(self.weather.values()) if self.weather else None

    def mean_clean(self) -> float | None:
        """The fleet's mean in clear air."""
        return fmean(self.clean.values()) if self.clean else None
