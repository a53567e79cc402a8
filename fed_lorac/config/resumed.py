"""The config that a run goes on with: the one it began with, but for who works. Knows keys; not checkpoints."""

from collections.abc import Sequence
from pathlib import Path

from fed_lorac.config.load import load_config
from fed_lorac.config.spelling import toml
from fed_lorac.config.whole import Config
from fed_lorac.errors import ConfigError, RunError

__all__ = ["FREE", "resumed_config"]

FREE = ("run.workers", "run.out", "ray.")
"""Keys, or their beginnings, that may differ: none of them changes what a run computes."""


def resumed_config(folder: Path, source: str | None = None, overrides: Sequence[str] = ()) -> Config:
    """The config of the run in `folder` with `overrides` on top, or that of `source`, which must agree with it.

    Raises:
        RunError: no run began in the folder.
        ConfigError: a key differs that decides what the run computes.
    """
    if not (folder / "config.toml").is_file():
        raise RunError(f"A run to go on with has a config.toml in its folder; {folder} has none. Start it instead.")
    began = load_config(folder / "config.toml")
    asked = load_config(folder / "config.toml" if source is None else source, overrides)
    before, after = began.to_flat(), asked.to_flat()
    changed = [key for key in before if before[key] != after[key] and not key.startswith(FREE)]
    if changed:
        differences = ", ".join(f"{key} ({toml(before[key])}, now {toml(after[key])})" for key in changed)
        raise ConfigError(
            f"A run goes on as it began; changed are {differences}. Only run.workers and ray.* may be: put the "
            "others back, or start a new run."
        )
    return asked
