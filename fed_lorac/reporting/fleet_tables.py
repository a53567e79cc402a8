"""A fleet before anything is run, as rows and a table. Knows cameras; not messages or rounds."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.markup import escape
from rich.table import Table

from fed_lorac.experiment.experiment import Experiment
from fed_lorac.fleet.fleet import AS_IT_IS
from fed_lorac.reporting.contact_sheet import evenly
from fed_lorac.reporting.to_come import BytesToCome

__all__ = ["camera_rows", "fleet_table"]

_SHOWN_ROUNDS = 20


def camera_rows(experiment: Experiment, to_come: BytesToCome | None) -> list[dict[str, Any]]:
    """A row a camera: its name, weather, link, speed, images, commonest class and its share (0 to 1), and the bytes of
    its reply (None: not known yet)."""
    rows = []
    for camera in experiment.fleet.cameras:
        commonest = max(camera.label_mix, key=camera.label_mix.__getitem__)
        rows.append(
            {
                "camera": camera.id,
                "name": camera.name,
                "corruption": camera.corruption,
                "severity": camera.severity,
                "link": camera.link,
                "speed": camera.speed,
                "images": len(camera.train),
                "evaluation_images": len(camera.evaluation),
                "classes": sum(share > 0 for share in camera.label_mix.values()),
                "commonest_class": commonest,
                "commonest_share": camera.label_mix[commonest],
                "reply_bytes": to_come and to_come.replies[camera.id],
            }
        )
    return rows


def fleet_table(rows: Sequence[Mapping[str, Any]], experiment: Experiment) -> Table:
    """Cameras' rows for the terminal; where weather changes, that of rounds of the run, evenly spread."""
    table = Table(title="The fleet")
    changing = experiment.fleet.changing
    weather = "weather over the rounds" if changing else "weather"
    names = ["camera", weather, "link", "images", "evaluated", "commonest class"]
    for name in names:
        table.add_column(name, justify="right" if name in ("images", "evaluated") else "left")
    for row in rows:
        own = row["corruption"] if row["corruption"] == AS_IT_IS else f"{row['corruption']} {row['severity']}"
        common = f"{row['commonest_class']} ({row['commonest_share']:.0%})"
        seen = _over_rounds(experiment, row["camera"]) if changing else own
        cells = [f"{row['camera']} {row['name']}".rstrip(), seen, row["link"], f"{row['images']:,}"]
        table.add_row(*map(escape, [*cells, f"{row['evaluation_images']:,}", common]))
    return table


def _over_rounds(experiment: Experiment, camera: int) -> str:
    """Each corruption and its severities in turn: "fog 3 4, snow 2"; severity 0 is clear air."""
    rounds = [round + 1 for round in evenly(experiment.plan.rounds, _SHOWN_ROUNDS)]
    seen = [experiment.fleet.weather(camera, round) for round in rounds]
    by_corruption = groupby(seen, key=lambda weather: weather.corruption)
    return ", ".join(" ".join([name, *(str(weather.severity) for weather in its)]) for name, its in by_corruption)
