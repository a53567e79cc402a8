"""Laws of exported files that a stranger wrote: none says what code is run, and none crashes its reader."""

import json
from pathlib import Path

import pytest
import torch

import fed_lorac as fl
from fed_lorac.models import build, described
from fed_lorac.models.fingerprints import fingerprint, named_tensors
from fed_lorac.runtime.tensor_files import write_tensors

NETWORK = {
    "holds": "network",
    **described("resnet8", {"width": 4}),
    "classes": '["day", "night"]',
    "batch_norm": "kept",
}


def small() -> torch.nn.Module:
    return build("resnet8", num_classes=2, width=4)


def file(tmp_path: Path, said: dict[str, str | None], holds: str = "network") -> Path:
    """A file of a small network that says this of itself; None: not at all."""
    network = small()
    known = NETWORK if holds == "network" else {"holds": "adapter", "base": fingerprint(named_tensors(network))}
    told = {key: value for key, value in {**known, **said}.items() if value is not None}
    tensors = network.state_dict() if holds == "network" else {"fc.bias": torch.ones(2)}
    return write_tensors(tmp_path / "foreign.safetensors", tensors, told)


def test_what_is_tried_here_is_whole_otherwise(tmp_path: Path) -> None:
    assert fl.load_network(file(tmp_path, {}))(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    network = small()
    fl.load_adapter(network, file(tmp_path, {}, "adapter"))
    torch.testing.assert_close(network.fc.bias, small().fc.bias + 1)  # type: ignore[operator]


@pytest.mark.parametrize("model", ["foreign_and_evil:run", "subprocess:Popen"])
def test_a_file_does_not_say_what_is_imported(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # modules are looked for here too
    (tmp_path / "foreign_and_evil.py").write_text("open('imported', 'w')")
    settings = json.dumps({"args": ["touch", "called"]})
    path = file(tmp_path, {"model": model, "model_settings": settings})
    with pytest.raises(fl.DataError, match=r"does not decide what code is run.*trust=True.*fed_lorac\.models"):
        fl.load_network(path)
    assert {one.name for one in tmp_path.iterdir()} == {"foreign_and_evil.py", "foreign.safetensors"}


@pytest.mark.parametrize(
    "said",
    [
        *({key: None} for key in NETWORK if key != "holds"),
        {"classes": "["},
        {"classes": "2"},
        {"classes": "[" * 100_000},
        {"width": "x"},
        {"model_settings": "[1]"},
        {"model_settings": '{"num_classes": 3}'},
        {"model_settings": '{"depth": 3}'},
    ],
    ids=lambda said: json.dumps(said)[:40],
)
def test_metadata_that_makes_no_network_is_a_data_error(said: dict[str, str | None], tmp_path: Path) -> None:
    path = file(tmp_path, said)
    with pytest.raises(fl.DataError, match="in the words of `fed-lorac export`"):
        fl.load_network(path)


@pytest.mark.parametrize("said", [{"width": "-3"}, {"norm": "none"}, {"model": "resnet9"}], ids=json.dumps)
def test_settings_that_no_network_has_are_named(said: dict[str, str | None], tmp_path: Path) -> None:
    with pytest.raises(fl.ConfigError, match=next(iter(said.values()))):
        fl.load_network(file(tmp_path, said))


@pytest.mark.parametrize(
    "said",
    [
        {"base": None},
        {"settings": "{"},
        {"settings": "{}"},
        {"settings": "3", "method": "atp"},
        {"settings": '{"depth": 3}', "method": "atp"},
    ],
    ids=json.dumps,
)
def test_metadata_that_makes_no_adapter_is_a_data_error(said: dict[str, str | None], tmp_path: Path) -> None:
    network = small()
    path = file(tmp_path, said, "adapter")
    with pytest.raises(fl.DataError, match="in the words of `fed-lorac export`"):
        fl.load_adapter(network, path)
    assert fingerprint(named_tensors(network)) == fingerprint(named_tensors(small()))


def test_an_adapter_of_tensors_that_the_base_has_not_is_refused(tmp_path: Path) -> None:
    network, own = small(), fingerprint(named_tensors(small()))
    for tensors in ({"head.weight": torch.ones(2)}, {"fc.bias": torch.ones(3)}, {"x.A": torch.ones(1, 2)}):
        path = write_tensors(tmp_path / "a.safetensors", tensors, {"holds": "adapter", "base": own})
        with pytest.raises(fl.FedLoracError):
            fl.load_adapter(network, path)
    assert fingerprint(named_tensors(network)) == own
