"""What methods send: formulas against states and the kept result, for every pair; and the docs' tables against it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from method_bytes.formulas import DOWN, UP, Layers, Setting, layers_of, up_of
from method_bytes.markdown import TABLES, written
from method_bytes.pairs import FORMS, ONE, Pair, pairs
from method_bytes.words import CODEC_WORDS, FORM_WORDS
from small_runs import ROOT

from fed_lorac import registry
from fed_lorac.api.catalogue import methods
from fed_lorac.client.agreement import uplink_template
from fed_lorac.experiment.build import build_experiment
from fed_lorac.models import build
from fed_lorac.registry import ADAPTERS

KEPT = ROOT / "benchmarks/results/bytes_by_method.json"
DOCS = [ROOT / f"docs/{name}.md" for name in ("methods", "codecs", "radios")]
FORMED = [(adapter, form) for adapter in ADAPTERS.names for form in FORMS.get(adapter, ONE)]


def read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))
    return found


def numbers(pair: Pair, layers: Layers, setting: Setting) -> tuple[int, int]:
    """Up and down, by formula."""
    up = up_of(pair.adapter, pair.form, pair.strategy)
    return up.numbers(layers, setting), DOWN[pair.strategy, pair.way].numbers(layers, setting, up)


@pytest.mark.parametrize("network", ["resnet20", "resnet18"])
@pytest.mark.parametrize(("adapter", "form"), FORMED)
def test_a_state_has_as_many_numbers_as_its_formula_says(adapter: str, form: str, network: str) -> None:
    pair = Pair(adapter, form, "fedavg" if adapter == "full" else "merged", "", FORMS.get(adapter, ONE)[form])
    config = pair.config(network, 1, 2)
    experiment = build_experiment(config)
    held = sum(_numel(shape) for shape in uplink_template(experiment).values())
    assert held == up_of(adapter, form, "merged").numbers(
        layers_of(experiment.base.plain), Setting.of(config.adapter, 1)
    )


def _numel(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def test_the_kept_result_has_every_pair_and_is_what_the_formulas_say() -> None:
    found, scenario = kept(), kept()["scenario"]
    layers = {network: layers_of(build(network)) for network in scenario["networks"]}
    known = {(pair.adapter, pair.form, pair.strategy, pair.way): pair for pair in pairs()}
    rows = [(row["network"], *(row[key] for key in ("adapter", "form", "strategy", "way"))) for row in found["rows"]]
    assert sorted(rows) == sorted((network, *key) for key in known for network in layers), "measure again"
    for row, (network, *key) in zip(found["rows"], rows, strict=True):
        pair = known[tuple(key)]  # type: ignore[index]
        setting = Setting.of(pair.config(network, scenario["cameras"], scenario["rank"]).adapter, scenario["cameras"])
        assert (row["numbers_up"], row["numbers_down"]) == numbers(pair, layers[network], setting), row
        for side in ("up", "down"):
            weight = row[side]
            assert weight["payload_bytes"] == 4 * row[f"numbers_{side}"]
            assert weight["payload_bytes"] < weight["frame_bytes"] < weight["message_bytes"] or weight == _nothing(
                weight
            )


def _nothing(weight: dict[str, int]) -> dict[str, int]:
    return dict.fromkeys(weight, 0)


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.name)
def test_tables_are_those_of_the_kept_result(file: Path) -> None:
    text = read(file)
    assert text == written(text, kept()), f"python benchmarks/bytes_by_method.py --tables {file.relative_to(ROOT)}"


def test_the_docs_have_every_table_once() -> None:
    marked = [name for file in (ROOT / "README.md", *DOCS) for name in re.findall(r"<!-- table: (\w+) -->", read(file))]
    assert sorted(marked) == sorted(TABLES)


@pytest.mark.parametrize("kind", ["adapters", "strategies", "codecs", "links"])
def test_the_docs_name_every_entry_of_a_registry_and_its_source(kind: str) -> None:
    text = "\n".join(map(read, DOCS))
    for entry in methods()[kind]:
        assert f"| `{entry['name']}` |" in text, entry
        assert f"| {entry['source']} |" in text, entry
        if kind in ("adapters", "strategies"):
            assert f"**`{entry['name']}`**" in text, f"{entry['name']} has no paragraph of its own"


def test_every_method_has_a_formula() -> None:
    assert {adapter for adapter, _ in UP} == set(ADAPTERS.names)
    assert {strategy for strategy, _ in DOWN} == set(registry.STRATEGIES.names)
    assert set(CODEC_WORDS) == set(registry.CODECS.names)
    assert {form for _, form in FORMED} <= set(FORM_WORDS)
