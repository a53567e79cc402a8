"""A contact sheet: what cameras see. Knows configs, data and fleets; not results."""

from pathlib import Path

from fed_lorac.api.result import load_run
from fed_lorac.errors import FedLoracError
from fed_lorac.fleet.fleet import CLEAR, Camera, Weather
from fed_lorac.pages.chart import Absent, Figure, Picture

__all__ = ["contact_sheet"]

_TITLE = "What cameras see"
_MOST = 24


def contact_sheet(folder: Path) -> Figure | Absent:
    """One image of each camera of a run, in clear air and in its weather; where weather changes, in three rounds."""
    try:
        return _sheet(folder)
    except (FedLoracError, OSError) as error:
        return Absent(_TITLE, f"the images cannot be read here: {error}")


def _sheet(folder: Path) -> Figure:
    from fed_lorac.data.store import cached_arrays  # noqa: PLC0415
    from fed_lorac.experiment.build import open_data  # noqa: PLC0415  (PyTorch, for those who look at images)
    from fed_lorac.fleet.assignment import build_fleet  # noqa: PLC0415
    from fed_lorac.seeds import stream  # noqa: PLC0415

    config = load_run(folder).config
    seed, last = config.run.seed, config.run.rounds
    data = open_data(config)
    fleet = build_fleet(config.fleet, data, seed, cached_arrays)
    rounds = sorted({1, (1 + last) // 2, last}) if fleet.changing else [last]
    shown = fleet.cameras[:: max(1, -(-len(fleet.cameras) // _MOST))]
    images, words, rows = [], [], []
    for camera in shown:
        pick = camera.evaluation[:1]
        for number in (None, *rounds):
            weather = Weather(camera.corruption, CLEAR) if number is None else fleet.weather(camera.id, number)
            clear = weather.severity == CLEAR
            drawn = stream(seed, "contact sheet", camera.id)
            pixels = data.clean(pick) if clear else data.weather(pick, weather.corruption, weather.severity, drawn)
            images.append(pixels[0])
            words.append(_word(camera, weather, number if len(rounds) > 1 else None))
            rows.append(
                {
                    "camera": camera.id,
                    "round": number or 0,
                    "corruption": weather.corruption,
                    "severity": weather.severity,
                }
            )
    each = 1 + len(rounds)
    columns = each * max(1, 8 // each)
    count = f"{len(shown)} of {len(fleet.cameras)} cameras" if len(shown) < len(fleet.cameras) else "Every camera"
    when = "in rounds " + ", ".join(map(str, rounds)) if fleet.changing else "in its weather"
    caption = f"{count}: one of the images that it is measured on, in clear air and then {when}."
    alt = f"Small images of {len(shown)} cameras, each in clear air and in its weather."
    return Figure("contact-sheet", _TITLE, caption, alt, rows, Picture(images, words, columns))


def _word(camera: Camera, weather: Weather, round: int | None) -> str:
    where = "clear" if weather.severity == CLEAR else f"{weather.corruption.replace('_', ' ')} {weather.severity}"
    when = "" if round is None else f"round {round}\n"
    return f"{camera.name or f'camera {camera.id}'}\n{when}{where}"
