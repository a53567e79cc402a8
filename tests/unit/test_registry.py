"""Laws of the registry: every name is a class, and somebody else's class is named like ours."""

import subprocess
import sys
from pathlib import Path

import pytest

from fed_lorac import registry
from fed_lorac.config import Config, load_config
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.settings import rules_of

KINDS = (
    registry.ADAPTERS,
    registry.STRATEGIES,
    registry.OBJECTIVES,
    registry.AGGREGATORS,
    registry.SERVER_OPTIMIZERS,
)

MINE = """
from dataclasses import dataclass
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.runtime.settings import setting

@dataclass(frozen=True)
class Warm(LoraC):
    warmth: float = setting(0.5, "how warm it is", least=0)
"""


def test_every_name_is_a_class_that_says_where_it_is_from_and_what_its_settings_mean() -> None:
    for kind in KINDS:
        for name in kind.names:
            found = kind.load(name)
            assert found.source, name
            assert all(rule.meaning for rule in rules_of(found).values())


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "warm_lora.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "warm_lora:Warm"


def test_a_class_of_ones_own_takes_the_values_in_view_and_its_options(mine: str) -> None:
    config = load_config(None, [f"adapter.method={mine}", "rank=3", "alpha=6", "warmth=2"])
    adapter = config.adapter.build("method")
    assert (type(adapter).__name__, adapter.rank, adapter.alpha, adapter.warmth) == ("Warm", 3, 6.0, 2.0)
    ends = {"train_first_conv": True, "train_classifier": True, "end_rank": 0}
    assert config.adapter.tables["options"] == ends | {"rank_mode": "auto", "kernel_wise": False, "warmth": 2.0}


def test_its_options_go_through_flowers_scalars_and_toml(mine: str, tmp_path: Path) -> None:
    config = load_config(None, {"adapter": {"method": mine, "options": {"warmth": 2}}})
    flat = config.to_flat()
    ends = "train_first_conv = true, train_classifier = true, end_rank = 0"
    assert flat["adapter.options"] == f'{ends}, rank_mode = "auto", kernel_wise = false, warmth = 2.0'
    assert Config.from_flat(flat) == config
    (tmp_path / "mine.toml").write_text(config.to_toml())
    assert load_config(tmp_path / "mine.toml") == config
    assert load_config(config, ["adapter.method=lora-c"]) == Config()


def test_options_are_checked_by_name(mine: str) -> None:
    for options, told in (
        ("warmth = -1", r"adapter\.options\.warmth must be a finite number, at least 0; got -1"),
        ("warmht = 1", r"no setting 'adapter\.options\.warmht'\. Did you mean 'adapter\.options\.warmth'"),
        ("warmth", r"must be one text of inline TOML"),
    ):
        with pytest.raises(ConfigError, match=told):
            Config.from_flat({"adapter.method": mine, "adapter.options": options})
    with pytest.raises(ConfigError, match=r"\[adapter\.options\] has the settings of a method of your own"):
        Config.from_flat({"adapter.options": "warmth = 1"})


def test_a_class_that_cannot_be_imported_is_told_with_the_reason() -> None:
    for name in ("nowhere_at_all:Mine", "fed_lorac.adapters.lora_c:Nothing", "fed_lorac.adapters.lora_c:"):
        with pytest.raises(ConfigError, match=r"must name what can be imported.*Check the spelling"):
            Config.from_flat({"adapter.method": name})


def test_the_registry_imports_nothing() -> None:
    script = "import sys, fed_lorac.registry; print('torch' in sys.modules, 'flwr' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
