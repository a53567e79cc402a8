"""Laws of `fed-lorac sizes`: measured on shapes as on a network with weights, and readable on a narrow terminal."""

import json
import re
import sys
from dataclasses import replace

import pytest
from named_adapters import named_adapter
from rich.console import Console

from fed_lorac import cli, registry
from fed_lorac.errors import ConfigError
from fed_lorac.models import build
from fed_lorac.registry import ADAPTERS
from fed_lorac.reporting.size_tables import sizes_table
from fed_lorac.reporting.sizes import PAPER_TABLE, asked, sizes
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.wire.frame import encode
from fed_lorac.wire.template import template_of


def shown(*words: str) -> str:
    """What `fed-lorac sizes WORDS` prints on a terminal of 80 columns."""
    table = Console(record=True, width=80)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "out", table)
        patch.setattr(sys, "argv", ["fed-lorac", "sizes", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert not end.value.code
    return table.export_text()


@pytest.mark.parametrize("dtype", registry.CODECS.names)
@pytest.mark.parametrize("method", ADAPTERS.names)
def test_a_frame_is_as_large_without_weights_as_with_them(method: str, dtype: str) -> None:
    if dtype == "bernoulli" and method != "mask":
        with pytest.raises(ConfigError, match=rf"bernoulli is for states that are probabilities.*{method} came"):
            sizes("resnet8", method, 2, "r*k", dtype=dtype)
        return
    network = build("resnet8")
    ends: dict[str, bool] = {} if dtype != "bernoulli" else {"train_first_conv": False, "train_classifier": False}
    adapter = named_adapter(method=method, rank=2, alpha=4.0, rank_mode="r*k", **ends)
    adapter.prepare(network)
    adapter.attach(network, torch_stream(0, "sizes"))
    state = adapter.read(network)
    known = [template_of({name: tensor.shape for name, tensor in state.items()})]
    frame = encode(state, dtype=dtype, base="", rng=stream(0, "weighed"), templates=known)
    found = sizes("resnet8", method, 2, "r*k", dtype=dtype)
    assert found.frame_bytes == len(frame)
    assert found.trainable_parameters == sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert found.full_fp32_frame_bytes == sizes("resnet8", "full").frame_bytes


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
@pytest.mark.parametrize("method", ADAPTERS.names)
def test_a_table_fits_80_columns_with_every_cell_whole(method: str, dtype: str) -> None:
    kinds = ("frame", "message", "full_frame", "full_message", "full_fp32_frame")
    large = {f"{kind}_bytes": 170_056_426 for kind in kinds}
    large |= {"trainable_parameters": 42_512_970, "full_parameters": 42_512_971}  # as many as resnet101's, and more
    rows = [replace(sizes("resnet8", method, rank, "r*k", dtype=dtype), **large, model="resnet101") for rank in (1, 16)]
    console = Console(record=True, width=80)
    console.print(sizes_table(rows))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    for row in rows:
        for value in (row.trainable_parameters, row.frame_bytes, row.message_bytes, row.full_message_bytes):
            assert f" {value:,} " in text
    assert "in fp32" in text and "codec" in text  # both shares, whatever the codec


def test_the_share_is_of_full_fine_tuning_in_fp32_and_of_the_same_codec_beside_it() -> None:
    lines = shown("--model", "resnet8", "--rank", "1", "--rank-mode", "r", "--dtype", "int8").splitlines()
    one, full = sizes("resnet8", rank=1, rank_mode="r", dtype="int8"), sizes("resnet8", "full")
    row = next(line for line in lines if line.strip().startswith("r=1 (r)"))
    shares = [f"{100 * one.frame_bytes / whole:.3g}%" for whole in (full.frame_bytes, one.full_frame_bytes)]
    assert row.split()[-2:] == shares
    assert one.full_frame_bytes < full.frame_bytes


def test_each_network_has_a_table_of_its_own() -> None:
    found = asked(None, "linear-probe", None, "auto")
    assert [*found] == [*dict.fromkeys(row[0] for row in PAPER_TABLE)]
    for network, rows in found.items():  # a method without a rank has one row
        assert [(row[0], row[1]) for row in rows] == [(network, "linear-probe")]


@pytest.mark.slow
def test_the_tables_of_all_networks_are_printed() -> None:
    text = shown("--method", "linear-probe")
    for network in dict.fromkeys(row[0] for row in PAPER_TABLE):
        assert f"{network}, linear-probe, fp32: what a camera trains" in text
    assert text.count("linear-probe  ") == 5  # it has no rank: one row a network


def test_a_codec_that_does_not_exist_is_refused_before_anything_is_built() -> None:
    with pytest.raises(ConfigError, match="int3"):
        sizes("resnet8", dtype="int3")


@pytest.mark.parametrize(
    ("method", "ranks", "mode", "says"),
    [
        ("norm-affine", [7], "auto", "norm-affine has no rank, which came as 7. Leave out --rank,"),
        ("norm-affine", None, "r", "norm-affine has no rank_mode, which came as r. Leave out --rank-mode,"),
        ("lora-xs", [2], "r*k", "lora-xs has no rank_mode"),
    ],
)
def test_what_a_method_has_no_use_for_is_refused(method: str, ranks: list[int] | None, mode: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        asked("resnet8", method, ranks, mode)
    assert asked("resnet8", method, None, "auto")


def test_json_has_all_rows_in_one_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("--model", "resnet8", "--json") == ""
    found = json.loads(capsys.readouterr().out)
    assert [(row["rank"], row["dtype"]) for row in found] == [(1, "fp32"), (4, "fp32"), (16, "fp32")]


def test_what_is_trained_as_it_is_instead_of_by_factors_is_said() -> None:
    few, many = (sizes("mobilenet_v2", rank=rank) for rank in (1, 4))
    assert (few.dense_layers, many.dense_layers, sizes("resnet8").dense_layers) == (0, 17, 0)
    text = shown("--model", "mobilenet_v2", "--rank", "1", "--rank", "4")
    assert "r=4 (r): 17 grouped convolutions are trained whole: a branch would be no smaller" in text
    assert text.count("trained whole") == 1
