"""The figures of a page, in its order: each a file, each a function from what is reported to a figure or why there is
none."""

from collections.abc import Callable

from fed_lorac.pages.chart import Absent, Figure
from fed_lorac.pages.figures.air import air
from fed_lorac.pages.figures.cameras import cameras
from fed_lorac.pages.figures.curves import curves
from fed_lorac.pages.figures.energy import energy
from fed_lorac.pages.figures.error import error
from fed_lorac.pages.figures.frontier import frontier
from fed_lorac.pages.figures.left_out import left_out
from fed_lorac.pages.figures.per_round import per_round
from fed_lorac.pages.figures.spread import spread
from fed_lorac.pages.figures.tuning import tuning
from fed_lorac.pages.figures.weather import weather
from fed_lorac.pages.figures.weather_rounds import weather_rounds
from fed_lorac.pages.reported import Reported

__all__ = ["FIGURES", "Draw"]

Draw = Callable[[Reported], Figure | Absent]

FIGURES: dict[str, Draw] = {
    "frontier": frontier,
    "curves": curves,
    "weather": weather,
    "cameras": cameras,
    "weather-rounds": weather_rounds,
    "spread": spread,
    "bytes": per_round,
    "air": air,
    "energy": energy,
    "error": error,
    "left-out": left_out,
    "tuning": tuning,
}
