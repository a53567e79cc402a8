"""Which adapters and strategies go together, and what one camera sends and is sent in a real run of each. Knows configs
and a run's ledger; not formulas."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from fed_lorac.config import AdapterConfig, Config, load_config
from fed_lorac.errors import ConfigError
from fed_lorac.registry import ADAPTERS, STRATEGIES
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

__all__ = ["FORMS", "ONE", "WAYS", "Pair", "accepted", "last_round", "of_one_size", "pairs", "ran"]

Settings = Mapping[str, object]

_RANK_MODES: dict[str, Settings] = {"r": {"rank_mode": "r"}, "r*k": {"rank_mode": "r*k"}}
ONE: dict[str, Settings] = {"": {}}

FORMS: dict[str, dict[str, Settings]] = {
    "lora-c": {**_RANK_MODES, "kernel-wise": {"kernel_wise": "true", "rank_mode": "r"}},
    "ffa-lora-c": _RANK_MODES,
    "aad": _RANK_MODES,
    "filter-atoms": {"": {}, "m1": {"m1": 3}},
    "atp": {"": {"batch_norm.mode": "frozen"}},
}
"""adapter.method -> its forms, where it has several or needs settings, and the settings of each."""

WAYS: dict[str, dict[str, Settings]] = {
    "merged": {way: {"downlink": way} for way in ("svd", "stack", "dense")},
}
"""strategy.name -> its ways down, where it has several."""

_SMALL: Settings = {
    "model.weights": "none",
    "run.rounds": 2,
    "run.evaluate_every": 2,
    "run.fleet.checkpoint_every": 0,
    "run.precision": "fp32",
    "run.fleet.block_size": 4,
    "data.image_size": 8,
    "fleet.images": 8,
    "fleet.eval_images": 4,
    "fleet.corruptions": "gaussian_noise, contrast",
    "fleet.severities": "3",
    "local.epochs": 0,
    "local.steps": 1,
    "local.batch_size": 8,
}
"""Bytes do not hang on images, steps or weights."""

_WHAT = ("payload_bytes", "frame_bytes", "message_bytes")


@dataclass(frozen=True)
class Pair:
    """An adapter in one of its forms, under a strategy in one of its ways."""

    adapter: str
    form: str
    strategy: str
    way: str
    settings: Settings = field(default_factory=dict, compare=False, repr=False)

    def config(self, network: str, cameras: int, rank: int, width: int = 0, **others: object) -> Config:
        """The config of a small run; ConfigError where the pair makes no sense. `width`: the network's; 0: its own."""
        asked, takes = {"rank": rank, "alpha": 2.0 * rank}, AdapterConfig(self.adapter).settings("method")
        keys = {
            **_SMALL,
            "model.name": network,
            **({f"model.{network}.width": width} if width else {}),
            "fleet.cameras": cameras,
            "fleet.per_round": cameras,
            "adapter.method": self.adapter,
            **{f"adapter.{key}": value for key, value in asked.items() if key in takes},
            "strategy.name": self.strategy,
            **self.settings,
            **{key.replace("__", "."): value for key, value in others.items()},
        }
        return load_config(None, [f"{key}={value}" for key, value in keys.items()])


def pairs() -> Iterator[Pair]:
    """Every pair that makes sense, in the registries' order; one stands for all where nothing is sent, or as much
    whatever the adapter."""
    for strategy in STRATEGIES.names:
        able = (pair for pair in _of(strategy) if _makes_sense(pair))
        yield from islice(able, 1) if of_one_size(strategy) else able


def of_one_size(strategy: str) -> bool:
    """Whether cameras send the same number of numbers, or none, whatever the adapter."""
    kind = STRATEGIES.load(strategy)
    return not kind.sends or kind.forward_only


def accepted(strategy: str) -> list[str]:
    """The adapters that a strategy takes, as they are by default; frozen, where it draws their basis anew."""
    one = STRATEGIES.load(strategy)()
    return [name for name in ADAPTERS.names if one.refuses(one.adapted(ADAPTERS.load(name)())) is None]


def _of(strategy: str) -> Iterator[Pair]:
    for adapter in accepted(strategy):
        for form, settings in FORMS.get(adapter, ONE).items():
            for way, how in WAYS.get(strategy, ONE).items():
                yield Pair(adapter, form, strategy, way, {**settings, **how})


def _makes_sense(pair: Pair) -> bool:
    try:
        pair.config("resnet8", 4, 2)
    except ConfigError:
        return False
    return True


def ran(config: Config) -> dict[str, dict[str, int]]:
    """Direction -> payload, frame and message bytes of one camera in the last round, as the ledger has them; of the
    camera with most, where they differ."""
    rows = last_round(config)
    return {side: {what: max(row[f"{side}link_{what}"] for row in rows) for what in _WHAT} for side in ("up", "down")}


def last_round(config: Config) -> list[dict[str, Any]]:
    """The cameras' rows of a run's last round."""
    with tempfile.TemporaryDirectory() as folder:
        run(config, Path(folder) / "run", Watch())
        lines = (Path(folder) / "run/cameras.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["round"] == config.run.rounds]
