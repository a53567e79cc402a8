"""Laws of the examples in docs/extending.md: each is whole, and a run takes it by its name."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import ROOT, tiny

import fed_lorac as fl

EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "extending.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.fixture(scope="module", autouse=True)
def _package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    root = tmp_path_factory.mktemp("installed")
    (root / "shown_in_docs").mkdir()
    for number, source in enumerate(EXAMPLES):
        (root / "shown_in_docs" / f"example_{number}.py").write_text(source, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        yield


def place(name: str) -> str:
    (number,) = (number for number, source in enumerate(EXAMPLES) if re.search(rf"^(class|def) {name}\b", source, re.M))
    return f"shown_in_docs.example_{number}:{name}"


def test_the_adapter_that_is_shown_runs(tmp_path: Path) -> None:
    own = {"adapter__method": place("Gains"), "adapter__options__strength": 0.3, "strategy__name": "fedavg"}
    run = fl.run(tiny(run__rounds=1, **own), out=tmp_path / "run")
    sent = run.summary["bytes"]
    assert 0 < sent["uplink_message_bytes"] < sent["full_uplink_message_bytes"]


def test_the_strategy_that_is_shown_is_exact(tmp_path: Path) -> None:
    run = fl.run(tiny(run__rounds=1, strategy__name=place("PlainMean")), out=tmp_path / "run")
    assert run.rounds.aggregation_error.max() < 1e-6
