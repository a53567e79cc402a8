"""Runs side by side: whether they compare, which are one row with several seeds, and what each row is called. Knows
run folders and summaries; not how a table is written."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from fed_lorac.config.resumed import WITHOUT_EFFECT
from fed_lorac.config.sections.fleet import RADIOS
from fed_lorac.errors import ConfigError, RunError
from fed_lorac.records.ledger import ROUNDS_FILE, read_rows
from fed_lorac.records.summaries import Summary, base_of, camera_accuracies, read_summary, weather_changes
from fed_lorac.reporting.paired import Scores
from fed_lorac.reporting.target import reached

__all__ = ["ComparedRun", "Row", "changed_bases", "check_alike", "rows_of", "scores_of"]

_FREE = ("run.seed", "run.out", "run.workers", "run.pool", "run.ray.")
"""Keys, or their beginnings, in which runs of one row differ: their seed, and which workers ran them."""
_RADIOS = tuple(f"fleet.{kind.table}." for kind in RADIOS)
_NO_IMAGES = ("fleet.per_round", "fleet.link", *_RADIOS, "fleet.devices", "fleet.limited.", *WITHOUT_EFFECT)
"""Settings of the fleet and the data, or their beginnings, that change no camera's images."""
_MOST = 4  # settings that a label names; a run that differs in more is called by its folder
_DRAWN = ("none", "pretrain")  # bases that follow from the seed


@dataclass(frozen=True)
class ComparedRun:
    """A finished run: its folder, its summary, what reaching an accuracy took it (where that was asked), and each
    camera's last accuracy."""

    folder: str
    summary: Summary
    took: Summary | None = None
    cameras: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, target: float | None = None) -> Self:
        """The run in a folder; with `target`, what reaching that accuracy took it: ConfigError unless it is 0 to 1."""
        if target is not None and not 0 <= target <= 1:
            raise ConfigError(f"An accuracy to reach is from 0 to 1; got target = {target}. Give 0.7 for 70 %.")
        found = read_summary(folder)
        took = None if target is None else reached(target, read_rows(folder / ROUNDS_FILE).rows[: found["rounds"]])
        return cls(str(folder), found, took, camera_accuracies(folder, found["rounds"]))

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.summary["seed"])

    @property
    def fleet(self) -> tuple[Any, ...]:
        """What runs share whose cameras have the same images, and the same weather in their last round."""
        config = sorted(self.summary["config"].items())
        own = ((k, v) for k, v in config if k.startswith(("data.", "fleet.")) and not k.startswith(_NO_IMAGES))
        last = self.summary["rounds"] if weather_changes(self.summary) else None
        return (self.seed, self.summary["data"], last, *own)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the run was, resolved; less what makes no difference between runs of one row."""
        resolved = {"run.precision": self.summary.get("precision"), "run.device": self.summary.get("device")}
        config = {**self.summary["config"], **resolved}
        return {key: value for key, value in sorted(config.items()) if not key.startswith(_FREE)}


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone, and how they differ from the other rows."""

    label: str
    runs: Sequence[ComparedRun]

    @property
    def seeds(self) -> list[int]:
        """The runs' seeds, ascending."""
        return sorted(run.seed for run in self.runs)


def changed_bases(runs: Iterable[ComparedRun]) -> Iterator[str]:
    """A sentence for each base that runs of one seed name alike, and that was another in some of them: of a file that
    has changed since."""
    found: dict[Any, dict[str | None, list[str]]] = {}
    for run in runs:
        config = sorted(run.summary["config"].items())
        named = tuple((key, value) for key, value in config if key.startswith(("model.", "data.")))
        if dict(named).get("model.weights") not in _DRAWN:
            found.setdefault((run.seed, named), {}).setdefault(base_of(run.summary), []).append(run.folder)
    for (seed, named), versions in found.items():
        if len(versions) > 1:
            one, other = (its[0] for its in list(versions.values())[:2])
            yield (
                f"Runs can be compared if they began with one base; {dict(named)['model.weights']} was not the same in "
                f"{Path(one).name} and {Path(other).name} (seed {seed}). Delete the folders of the old runs, and run "
                "the study again."
            )


def scores_of(runs: Iterable[ComparedRun]) -> Scores:
    """Each fleet's cameras' accuracies: of the first run over it that has any."""
    found: dict[Any, Mapping[int, float]] = {}
    for run in runs:
        if run.cameras and run.summary["config"]:
            found.setdefault(run.fleet, run.cameras)
    return found


def rows_of(runs: Sequence[ComparedRun]) -> list[Row]:
    """The runs as rows, in the order in which they were given."""
    groups: dict[Any, list[ComparedRun]] = {}
    for run in runs:
        # Without its config nothing is known to be the same: such a run is a row of its own.
        key = tuple(run.settings.items()) if run.summary["config"] else run.folder
        groups.setdefault(key, []).append(run)
    single: list[list[ComparedRun]] = []
    for group in groups.values():
        twice = len({run.seed for run in group}) < len(group)  # a run and its repetition are not two seeds
        single += [[run] for run in group] if twice else [group]
    return [Row(label, group) for label, group in zip(_labels(single), single, strict=True)]


def _labels(groups: Sequence[Sequence[ComparedRun]]) -> list[str]:
    """The method in a few words and, where that is another row's too, the settings that differ, or the folder."""
    words = [str(group[0].summary["label"]) for group in groups]
    found = []
    for word, group in zip(words, groups, strict=True):
        others = [other[0].settings for other, its in zip(groups, words, strict=True) if its == word]
        # A setting that another has not was brought by a choice, which differs too and says enough.
        differ = [
            key for key, value in group[0].settings.items() if any(other.get(key, value) != value for other in others)
        ]
        said = ", ".join(f"{key}={_value(group[0].settings[key])}" for key in differ)
        found.append(f"{word}; {said}" if 0 < len(differ) <= _MOST else word)
    again = Counter(found)
    return [
        f"{label}; {', '.join(run.folder for run in group)}" if again[label] > 1 else label
        for label, group in zip(found, groups, strict=True)
    ]


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_alike(runs: Sequence[ComparedRun]) -> None:
    """Raise `RunError` where runs differ in data, base, rounds, weather or links, so that their numbers do not compare.

    Runs of other seeds may have another base, where that is drawn or trained from the seed. They share the weather that
    was asked for; which of it cameras have that were measured in the last round follows from the seed.
    """
    _check(runs, "data", lambda s: s["data"])
    _check(runs, "rounds", lambda s: s["rounds"])
    _check(runs, "links", lambda s: list(s["days"]))
    _check(runs, "base", lambda s: s["base"]["source"] if s["base"]["source"] in _DRAWN else s["base"])
    _check(runs, "weather", lambda s: _schedule(s) or sorted(s["per_corruption"]))
    for seed in {run.seed for run in runs}:
        own = [run for run in runs if run.seed == seed]
        _check(own, "base", lambda s: s["base"])
        _check(own, "weather", lambda s: sorted(s["per_corruption"]))


def _check(runs: Sequence[ComparedRun], name: str, fact: Any) -> None:
    found = [fact(run.summary) for run in runs]
    if any(value != found[0] for value in found):
        other = next(i for i, value in enumerate(found) if value != found[0])
        raise RunError(
            f"Runs can be compared if they share data, base, rounds, weather and links; {runs[0].folder} and "
            f"{runs[other].folder} differ in {name}: {found[0]} and {found[other]}. Run them again from one config."
        )


def _schedule(summary: Summary) -> list[Any]:
    """The weather that was asked for; nothing where a run's config is lost."""
    keys: Iterable[str] = ("fleet.corruptions", "fleet.severities", "fleet.schedule")
    return [summary["config"][key] for key in keys if key in summary["config"]]
