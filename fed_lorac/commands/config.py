"""`fed-lorac config`: the settings in force, as TOML. Knows the terminal; not what a setting does."""

import sys

from fed_lorac.commands.options import Overrides, Source, err

__all__ = ["config"]


def config(config: Source = None, overrides: Overrides = None) -> None:
    """Print a config as a run would have it: every setting in force, with its meaning, as TOML.

    Saved to a file, it is a config again: fed-lorac config quickstart -c strategy.aggregator=krum > mine.toml
    """
    from fed_lorac.config import load_config  # noqa: PLC0415

    with err.status("importing PyTorch"):  # methods say themselves which settings they have
        settings = load_config(config, overrides or [])
    sys.stdout.write(settings.to_toml())
