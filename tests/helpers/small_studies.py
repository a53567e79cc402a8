"""Small whole studies for tests: their settings by full name, and one of two arms and two seeds."""

from typing import Any

from small_runs import TINY

NAMED: dict[str, Any] = {**{key: value for key, value in TINY.items() if key != "width"}, "model.resnet8.width": 4}
"""The settings of a small run, each key whole."""
SETTINGS = NAMED | {"run.rounds": 1, "fleet.cameras": 2, "fleet.per_round": 2}
FULL = {"adapter.method": "full", "strategy.name": "fedavg"}
STUDY: dict[str, Any] = {
    "seeds": [0, 1],
    "settings": SETTINGS,
    "arms": {"full": FULL, "lora-c": {"grid": {"adapter.rank": [1, 2]}}},
}
