"""The config that a run goes on with: the one it began with, but for a few keys. Knows keys; not checkpoints."""

from collections.abc import Mapping
from pathlib import Path

from fed_lorac.config.load import Overrides, Source, load_config
from fed_lorac.config.whole import Config
from fed_lorac.errors import ConfigError, RunError
from fed_lorac.runtime.spelling import toml

__all__ = ["CONFIG_FILE", "FREE", "WITHOUT_EFFECT", "check_unchanged", "resumed_config"]

CONFIG_FILE = "config.toml"
"""Where a run's folder has its config."""

WITHOUT_EFFECT = (
    "run.workers",
    "run.pool",
    "run.out",
    "run.log",
    "run.options",
    "run.ray.",
    "run.fleet.checkpoint_every",
    "run.fleet.keep_base_scores",
    "data.root",
    "local.kept_mib",
)
"""Keys, or their beginnings, that change no result: who works, where files are, what is kept in memory, and how a run
is watched over."""

FREE = (
    *WITHOUT_EFFECT,
    "run.rounds",
    # Settled ones are kept in checkpoints and compared there: "auto" may become what it stood for.
    "run.precision",
    "run.device",
    "run.fleet.block_size",
)
"""Keys, or their beginnings, that may differ when a run goes on: how far it goes, and what is compared as what it comes
to."""


def resumed_config(folder: Path, source: Source = None, overrides: Overrides = ()) -> Config:
    """The config of the run in `folder` with `overrides` on top, or that of `source`, which must agree with it.

    Raises:
        RunError: no run began in the folder.
        ConfigError: a key differs that decides what the run computes.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise RunError(f"No run to resume in {folder}: it has no {CONFIG_FILE}. Check the path, or leave out resume.")
    began = load_config(folder / CONFIG_FILE)
    asked = load_config(folder / CONFIG_FILE if source is None else source, overrides)
    check_unchanged(began.to_flat(), asked)
    return asked


def check_unchanged(began: Mapping[str, object], asked: Config) -> None:
    """Raise `ConfigError` where a config differs from the flat one that a run began with in more than FREE keys."""
    now = asked.to_flat()
    changed = [key for key in {**now, **began} if now.get(key) != began.get(key)]
    if changed := [key for key in changed if not key.startswith(FREE)]:
        differences = ", ".join(f"{key} ({_told(began.get(key))}, now {_told(now.get(key))})" for key in changed)
        raise ConfigError(
            f"A run goes on with its own config; changed: {differences}. Change them back, or start a new run. Only "
            f"these may change: {', '.join(key.removesuffix('.') for key in FREE)}."
        )


def _told(value: object) -> str:
    return "not there" if value is None else toml(value)
