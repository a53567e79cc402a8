"""The catalogue: every method that a config can name is in it, with a source."""

import json
from typing import Any

import pytest
from command_line import called

from fed_lorac.api.catalogue import methods
from fed_lorac.registry import ADAPTERS, CODECS, LINKS, STRATEGIES

KINDS = {
    "adapters": ADAPTERS.names,
    "strategies": STRATEGIES.names,
    "codecs": CODECS.names,
    "links": LINKS.names,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_that_a_config_may_say_has_an_entry_with_a_source(kind: str) -> None:
    entries = methods()[kind]
    assert [entry["name"] for entry in entries] == list(dict.fromkeys(entry["name"] for entry in entries))
    assert {entry["name"] for entry in entries} == set(KINDS[kind])
    for entry in entries:
        assert entry.keys() == {"name", "source", *(["exact"] if kind == "strategies" else [])}
        assert isinstance(entry["source"], str) and len(entry["source"]) > 3, entry


def test_every_adapter_says_its_own_source() -> None:
    assert all("source" in vars(kind) for kind in map(ADAPTERS.load, ADAPTERS.names))


def test_a_strategy_is_exact_or_not() -> None:
    exact = {entry["name"]: entry["exact"] for entry in methods()["strategies"]}
    assert all(isinstance(value, bool) for value in exact.values())
    assert (exact["merged"], exact["fedavg"], exact["factor-fedavg"]) == (True, True, False)


def test_the_command_prints_the_catalogue_as_json_and_as_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "methods", "--json") == 0
    found: dict[str, list[dict[str, Any]]] = json.loads(capsys.readouterr().out)
    assert found == methods()
    assert called(monkeypatch, "methods") == 0
    shown = capsys.readouterr().out
    assert all(entry["name"] in shown for entries in found.values() for entry in entries)
