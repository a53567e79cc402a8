"""The catalogue: every part that a config can name is in it, with what it is, its source and where it comes from."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import called
from own_parts import asked_beside, register, write_package
from rich.console import Console

from fed_lorac import registry
from fed_lorac.api.catalogue import methods, networks
from fed_lorac.reporting.tables import methods_tables

KINDS = ("adapters", "strategies", "objectives", "codecs", "links", "models", "datasets", "corruptions")
COLUMNS = ["name", "summary", "source", "origin", "problem"]
LISTED = "import fed_lorac as fl, json; print(json.dumps(fl.methods()))"


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_that_a_config_may_say_is_listed_with_what_it_is_and_its_source(kind: str) -> None:
    entries = methods()[kind]
    built_in = getattr(registry, kind.upper()).names
    assert tuple(entry["name"] for entry in entries if not entry["name"].endswith("*")) == built_in
    for entry in entries:
        assert [*entry] == [*COLUMNS, *{"adapters": ["lr"], "strategies": ["lr", "exact"]}.get(kind, [])]
        assert (entry["origin"] == "built in") == (entry["name"] in built_in) and not entry["problem"]
        assert 4 < len(entry["summary"]) < 121 and "\n" not in entry["summary"], entry
        if entry["name"] not in ("folder", "cameras"):  # one's own images are nobody's paper
            assert len(entry["source"]) > 3, entry


def test_every_network_of_a_library_is_of_one_family_and_listed_under_its_own_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    families = [entry for entry in methods()["models"] if entry["name"].endswith("*")]
    assert {entry["origin"].split()[0] for entry in families} == {"torchvision", "timm"}
    for name in networks():
        of = [entry for entry in families if name.startswith(entry["name"].removesuffix("*"))]
        assert name in registry.MODELS.names or (len(of) == 1 and registry.MODELS.takes(name)), name
    assert called(monkeypatch, "methods", "--networks", "convnext_") == 0
    assert capsys.readouterr().out.split() == networks("convnext_")
    assert called(monkeypatch, "methods", "--networks", "resnte8") == 2
    assert "none of" in (said := capsys.readouterr().err) and "Did you mean 'resnet8'?" in said
    assert {"convnext_tiny", "timm/convnext_atto"} <= set(networks("convnext_")) and "resnet8" in networks()


def test_every_adapter_says_its_own_source() -> None:
    assert all("source" in vars(kind) for kind in map(registry.ADAPTERS.load, registry.ADAPTERS.names))


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


def test_parts_of_installed_packages_are_listed_and_a_broken_one_says_what_is_wrong(tmp_path: Path) -> None:
    write_package(tmp_path, "their_parts")
    for broken, body in (("raises", "raise RuntimeError('no such luck')"), ("elsewhere", "Rain = 3")):
        (tmp_path / f"{broken}.py").write_text(body, encoding="utf-8")
    register(tmp_path, "fed_lorac.models", "net = their_parts.parts:net", "rest = raises:Net")
    register(tmp_path, "fed_lorac.strategies", "plain = their_parts.parts:PlainMean", "zest = raises:Mean")
    register(tmp_path, "fed_lorac.codecs", "tenths = their_parts.parts:tenths", "third = elsewhere:Rain")
    register(tmp_path, "fed_lorac.corruptions", "drizzle = their_parts.parts:drizzle", "rain = elsewhere:Rain")
    register(tmp_path, "fed_lorac.links", "lte-m = their_parts.parts:PIGEON")
    found = json.loads(asked_beside(tmp_path, LISTED))

    def last(kind: str, count: int = 2) -> list[dict[str, Any]]:
        return [*found[kind][-count:]]

    good, bad = last("models")
    assert (good["name"], good["origin"], good["problem"]) == ("net", "their-parts 1.0", "")
    assert (bad["name"], bad["origin"], bad["summary"]) == ("rest", "their-parts 1.0", "")
    assert "RuntimeError: no such luck" in bad["problem"] and "raises:Net" in bad["problem"]
    good, bad = last("strategies")
    assert (good["source"], good["exact"], bad["exact"]) == ("FedAvg, arXiv 1602.05629", True, None)
    good, bad = last("codecs")
    assert (good["summary"], good["source"]) == ("biased", "made up") and "A codec of your own is" in bad["problem"]
    good, bad = last("corruptions")
    assert (good["summary"], good["source"]) == ("Streaks of rain", "me, 2027")
    assert "A corruption of your own is called as" in bad["problem"]
    [taken] = last("links", 1)
    assert "their-parts registers 'lte-m' in fed_lorac.links, which is built in" in taken["problem"]
    assert [entry["name"] for entry in found["links"][:-1]] == [*registry.LINKS.names]


def test_the_table_has_what_is_wrong_in_place_of_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"name": "mine", "summary": "", "source": "", "origin": "their-parts 1.0", "problem": "[no] such luck"}
    Console(width=100).print(*methods_tables({"adapters": [row]}))
    assert "[no] such luck" in capsys.readouterr().out
