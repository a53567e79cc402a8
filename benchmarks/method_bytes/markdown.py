"""Tables of methods for the docs, from registries, formulas and a kept result. Knows Markdown; measures nothing.

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.api.catalogue import methods
from fed_lorac.registry import ADAPTERS, LINKS, STRATEGIES
from fed_lorac.wire.codecs.codecs import CODECS, Codec
from method_bytes.formulas import DOWN
from method_bytes.pairs import FORMS, ONE, WAYS, Pair, accepted, of_one_size, pairs
from method_bytes.words import CODEC_WORDS, FORM_WORDS, WAY_WORDS

__all__ = ["TABLES", "written"]

Found = Mapping[str, Any]
Row = list[str]

_MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
_TITLES = {"resnet20": "ResNet-20", "resnet18": "ResNet-18"}
_TYPICAL = (("lora-c", "r*k"), ("ffa-lora-c", "r*k"), ("full", ""))  # the adapter that a strategy is shown with


def written(text: str, found: Found) -> str:
    """The text with every marked table made anew from a kept result."""
    return _MARKED.sub(lambda mark: f"{mark[1]}{TABLES[mark[2]](found)}\n{mark[3]}", text)


def adapters(found: Found) -> str:
    """Every adapter and form: source, whether linear, what goes up as a formula and as measured."""
    rows = []
    for name, form, source in _adapters():
        sent = [cell for network in _networks(found) for cell in _sent_up(found, network, name, form)]
        adapter = _adapter(name, form)
        rows.append([f"`{name}`", FORM_WORDS[form], source, _yes(adapter.linear), adapter.formula, *sent])
    measured = [f"{_title(n)}: {what}" for n in _networks(found) for what in ("numbers", "bytes up", "of full")]
    return _table(["`adapter.method`", "", "source", "linear", "numbers up", *measured], _said_once(rows, 2), left=5)


def strategies(found: Found) -> str:
    """Every strategy and way down: source, exactness, what it accepts, what goes down as a formula and as measured."""
    rows = []
    for entry, way in _strategies():
        name = entry["name"]
        adapter, form = _typical(name)
        sent = [_weights(found, network, adapter, form, name, way) for network in _networks(found)]
        bytes_ = [f"{weight['frame_bytes']:,}" for pair in sent if pair for weight in pair]
        shown = f"`{adapter}`{', ' if form else ''}{FORM_WORDS[form]}"
        said = [entry["source"], _yes(entry["exact"]), _accepted(name), DOWN[name, way].words, shown]
        rows.append([f"`{name}`", WAY_WORDS[way], *said, *bytes_])
    measured = [f"{_title(n)}: {what}" for n in _networks(found) for what in ("bytes up", "down")]
    return _table(
        ["`strategy.name`", "", "source", "exact", "accepts", "numbers down", "with", *measured],
        _said_once(rows, 2),
        left=7,
    )


def down(found: Found) -> str:
    """Bytes of the frame that one camera is sent in a round: adapters by strategies, a network after the other."""
    ways = [(entry["name"], way) for entry, way in _strategies() if not of_one_size(entry["name"])]
    head = ["", "", *(f"`{name}`{' ' if way else ''}{WAY_WORDS[way]}" for name, way in ways)]
    parts = []
    for network in _networks(found):
        rows = []
        for adapter, form, _ in _adapters():
            sent = [_weights(found, network, adapter, form, *way) for way in ways]
            cells = [f"{pair[1]['frame_bytes']:,}" if pair else "" for pair in sent]
            rows.append([f"`{adapter}`", FORM_WORDS[form], *cells])
        parts.append(f"{_title(network)}:\n\n{_table(head, rows, left=2)}")
    return "\n\n".join(parts)


def codecs(found: Found) -> str:
    """Every codec: source, bias, bits, and LoRA-C's frame."""
    runs = {(row["network"], row["codec"], row["form"]): row for row in found["codecs"]}
    columns = [(network, form) for network in _networks(found) for form in ("r", "r*k")]
    rows = []
    for name, codec in CODECS.items():
        ran = [runs.get((network, name, form)) for network, form in columns]  # bernoulli is not for these
        frames = [f"{row['up']['frame_bytes']:,}" if row else "" for row in ran]
        rows.append([f"`{name}`", codec.source, _unbiased(codec), CODEC_WORDS[name], *frames])
    head = ["`codec.up`, `codec.down`", "source", "unbiased", "bits per value"]
    return _table([*head, *(f"{_title(network)}, `{form}`" for network, form in columns)], rows, left=4)


def links(found: Found) -> str:
    """Every radio class: source, rates, duty cycle, and the packets and the time of LoRA-C's smallest frame."""
    weights = _weights(found, _networks(found)[0], "lora-c", "r", "merged", "svd")
    size = weights[0]["frame_bytes"] if weights else 0
    rows = []
    for name in LINKS.names:
        row = LINKS.make(name)
        up, rates = row.up(size), [f"{rate:,g}" for rate in (row.uplink_kbit_s, row.downlink_kbit_s)]
        duty = f"{100 * row.duty_cycle:g} %"
        rows.append([f"`{name}`", row.source, *rates, duty, f"{up.packets:,}", _time(up.busy_s)])
    head = ["`fleet.link`", "source", "up, kbit/s", "down, kbit/s", "duty cycle", "packets", f"{size:,} bytes up"]
    return _table(head, _said_once(rows, 1), left=2)


TABLES: dict[str, Callable[[Found], str]] = {
    "adapters": adapters,
    "strategies": strategies,
    "down": down,
    "codecs": codecs,
    "links": links,
}
"""The name in a mark -> the table."""


def _adapters() -> Iterable[tuple[str, str, str]]:
    """(adapter, form, source) in the registry's order."""
    for entry in methods()["adapters"]:
        yield from ((entry["name"], form, entry["source"]) for form in FORMS.get(entry["name"], ONE))


def _strategies() -> Iterable[tuple[Mapping[str, Any], str]]:
    for entry in methods()["strategies"]:
        yield from ((entry, way) for way in WAYS.get(entry["name"], ONE))


def _networks(found: Found) -> list[str]:
    return list(found["scenario"]["networks"])


def _title(network: str) -> str:
    return _TITLES.get(network, network)


def _weights(
    found: Found, network: str, adapter: str, form: str, strategy: str, way: str
) -> tuple[Mapping[str, int], Mapping[str, int]] | None:
    """What went up and down; None where the pair makes no sense."""
    wanted = (network, adapter, form, strategy, way)
    for row in found["rows"]:
        if wanted == tuple(row[key] for key in ("network", "adapter", "form", "strategy", "way")):
            return row["up"], row["down"]
    return None


def _sent_up(found: Found, network: str, adapter: str, form: str) -> tuple[str, str, str]:
    """Numbers, bytes of the frame and the share of full fine-tuning's that an adapter sends as it is."""
    strategy, way = ("fedavg", "") if adapter == "full" else ("merged", "svd")
    own, full = (
        _weights(found, network, adapter, form, strategy, way),
        _weights(found, network, "full", "", "fedavg", ""),
    )
    if own is None or full is None:
        raise KeyError(f"{adapter} {form} on {network} was not measured: run benchmarks/bytes_by_method.py again")
    size = own[0]["frame_bytes"]
    return f"{own[0]['payload_bytes'] // 4:,}", f"{size:,}", f"{100 * size / full[0]['frame_bytes']:.3g} %"


def _typical(strategy: str) -> tuple[str, str]:
    if not STRATEGIES.load(strategy).sends:
        return "lora-c", "r"  # one that was run
    if of_one_size(strategy):
        return next((pair.adapter, pair.form) for pair in pairs() if pair.strategy == strategy)
    return next((adapter, form) for adapter, form in _TYPICAL if adapter in accepted(strategy))


def _adapter(name: str, form: str) -> Adapter:
    pair = Pair(name, form, "fedavg" if name == "full" else "merged", "", FORMS.get(name, ONE)[form])
    found: Adapter = pair.config("resnet8", 1, 2).adapter.build("method")
    return found


def _accepted(strategy: str) -> str:
    able = accepted(strategy)
    left_out = [f"`{name}`" for name in ADAPTERS.names if name not in able]
    if len(left_out) < 2:
        return " but ".join(["all", *left_out])
    return ", ".join(f"`{name}`" for name in able)


def _unbiased(codec: Codec) -> str:
    return "exact" if codec.lossless else _yes(codec.unbiased)


def _yes(said: bool) -> str:
    return "yes" if said else "no"


def _time(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"


def _table(head: Sequence[str], rows: Iterable[Row], *, left: int) -> str:
    """A Markdown table: the first `left` columns are words, the others figures."""
    rule = ["---" if i < left else "---:" for i in range(len(head))]
    return "\n".join("".join(f"| {cell} " if cell else "| " for cell in row) + "|" for row in [head, rule, *rows])


def _said_once(rows: Sequence[Row], column: int) -> list[Row]:
    """The rows, with "the same" where this column says what it says in the row above."""
    above = ["", *(row[column] for row in rows)]
    return [
        [*row[:column], "the same" if row[column] == before else row[column], *row[column + 1 :]]
        for row, before in zip(rows, above, strict=False)
    ]
