"""What each camera was measured at, out of cameras.jsonl. Knows what is reported; not how it is drawn."""

from statistics import fmean

from fed_lorac.pages.chart import Row
from fed_lorac.pages.reported import Arm, Reported

__all__ = ["NOT_RECORDED", "camera_rows", "last_measured", "mean_by_camera"]

NOT_RECORDED = "the version that made the runs did not record each camera's accuracy."


def camera_rows(arm: Arm) -> list[Row]:
    """A row a camera and measured round of each run; none of a run whose version did not record them."""
    return [
        {
            "arm": arm.label,
            "seed": run.seed,
            "run": run.row["run"],
            "round": row["round"],
            "camera": row["camera"],
            "name": run.summary.get("camera_names", {}).get(str(row["camera"]), ""),
            "corruption": row["corruption"] if row["severity"] or row["corruption"] == "none" else "clear",
            "severity": row["severity"],
            "accuracy": row["accuracy"],
        }
        for run in arm.runs
        for row in run.cameras
        if row.get("accuracy") is not None
    ]


def last_measured(found: Reported) -> list[Row]:
    """The rows of each run's last measured round."""
    rows = [row for arm in found.arms for row in camera_rows(arm)]
    last: dict[tuple[str, int], int] = {}
    for row in rows:
        key = row["arm"], row["seed"]
        last[key] = max(last.get(key, 0), row["round"])
    return [row for row in rows if row["round"] == last[row["arm"], row["seed"]]]


def mean_by_camera(rows: list[Row]) -> dict[int, float]:
    """Camera -> the mean over the seeds."""
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(row["camera"], []).append(row["accuracy"])
    return {camera: fmean(values) for camera, values in sorted(found.items())}
