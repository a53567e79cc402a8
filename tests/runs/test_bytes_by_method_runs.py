"""What methods send in whole runs: what the ledger bills is what the formulas say."""

from dataclasses import replace

import pytest
from benchmark_runs import ran as benchmark
from method_bytes.formulas import UP, Setting, layers_of
from method_bytes.pairs import FORMS, Pair, accepted, last_round, of_one_size, pairs, ran
from test_bytes_by_method import numbers

from fed_lorac import registry
from fed_lorac.models import build

BUSY = ("merged", "clustered", "rotating-basis", "fedavg")  # they accept nearly every adapter
STRATEGIES = [
    pytest.param(name, marks=pytest.mark.slow) if name in BUSY else name for name in registry.STRATEGIES.names
]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_bills_what_the_formulas_say_for_every_adapter(strategy: str) -> None:
    layers = layers_of(build("resnet8", width=4))
    own = [pair for pair in pairs() if pair.strategy == strategy]
    assert {pair.adapter for pair in own} == set(accepted(strategy)[: 1 if of_one_size(strategy) else None])
    for pair in own:
        config = pair.config("resnet8", 4, 2, width=4)
        found = ran(config)
        billed = found["up"]["payload_bytes"], found["down"]["payload_bytes"]
        up, down = numbers(pair, layers, Setting.of(config.adapter, 4))
        assert billed == (4 * up, 4 * down), pair


@pytest.mark.parametrize(("strategy", "way"), [("merged", "svd"), ("merged", "stack"), ("flora", ""), ("flexlora", "")])
def test_cameras_of_unequal_rank_send_their_own_and_are_sent_what_the_docs_say(strategy: str, way: str) -> None:
    settings = {**FORMS["lora-c"]["r"], "adapter.rank": "1, 2, 4", **({"strategy.merged.downlink": way} if way else {})}
    config = Pair("lora-c", "r", strategy, way, settings).config("resnet8", 4, 2, width=4)
    layers, up, one = layers_of(build("resnet8", width=4)), UP["lora-c", ""], Setting.of(config.adapter, 4)
    own = {rank: up.numbers(layers, replace(one, rank=rank)) for rank in (1, 2, 4)}
    for row, rank in zip(last_round(config), (1, 2, 4, 1), strict=True):
        stacked = up.merged(layers, replace(one, rank=1), 1 + 2 + 4 + 1)
        largest = up.merged(layers, replace(one, rank=4), 1)
        down = own[rank] if strategy == "flexlora" else largest if way == "svd" else stacked
        assert (row["uplink_payload_bytes"], row["downlink_payload_bytes"]) == (4 * own[rank], 4 * down)


@pytest.mark.slow
def test_the_benchmark_runs_and_says_what_each_pair_sent() -> None:
    small = ["--networks", "resnet8", "--width", "4", "--adapters", "linear-probe", "--codecs", "drive"]
    found = benchmark("bytes_by_method", *small)
    assert {row["strategy"] for row in found["rows"]} == {"merged", "fedavg", "clustered"}
    assert [row["form"] for row in found["codecs"]] == ["r", "r*k"]
    for row in (*found["rows"], *found["codecs"]):
        assert all(0 < row[side]["payload_bytes"] < row[side]["message_bytes"] for side in ("up", "down"))
