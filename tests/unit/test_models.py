"""Networks and their weights: counts, shapes, and what is refused."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fed_lorac.errors import ConfigError, DataError
from fed_lorac.models import build
from fed_lorac.models.weights import SHIPPED, Checkpoint, imagenet, load_into, read_checkpoint, shipped_path
from fed_lorac.seeds import torch_stream


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("resnet8", {"width": 64}, 1_227_594),  # FLoCoRA's network, arXiv 2406.14082
        ("fed_lorac.models.fedmud_cnn:fedmud_cnn", {}, 4_719_328),  # FedMUD's, as its authors' release counts it
        ("resnet20", {"shortcut": "identity"}, 269_722),  # He et al. 2016, option A: 0.27 M
        ("resnet20", {}, 272_474),
        ("resnet18", {}, 11_173_962),
        ("resnet34", {}, 21_282_122),
        ("resnet50", {}, 23_520_842),
        ("resnet101", {}, 42_512_970),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, settings: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        assert parameters(build(name, **settings)) == count  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 56])
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("shortcut", ["projection", "identity"])
def test_a_cifar_resnet_has_its_depth_in_weighted_layers_and_runs(depth: int, norm: str, shortcut: str) -> None:
    model = build(f"resnet{depth}", width=4, norm=norm, shortcut=shortcut, num_classes=7)
    main_path = [
        m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "downsample" not in name
    ]
    assert len(main_path) == depth
    assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    kinds = {type(m) for m in model.modules()}
    assert (nn.BatchNorm2d in kinds, nn.GroupNorm in kinds) == (norm == "batch", norm == "group")


def test_an_identity_shortcut_subsamples_and_pads_with_zeros() -> None:
    shortcut = build("resnet8", width=4, shortcut="identity").layer2[0].downsample
    x = torch.randn(1, 4, 6, 6)
    y = shortcut(x)
    assert y.shape == (1, 8, 3, 3)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, :2].any()
    assert not y[:, 6:].any()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_torchvision_resnet_keeps_the_resolution_of_its_stem(name: str) -> None:
    model = build(name).eval()
    seen: list[tuple[int, ...]] = []
    model.layer1.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape[2:])))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert seen == [(32, 32)]


def test_weights_come_from_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    one, again, other = (build("resnet8", generator=torch_stream(seed, "model")) for seed in (1, 1, 2))
    assert torch.equal(one.fc.weight, again.fc.weight)
    assert not torch.equal(one.fc.weight, other.fc.weight)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "resnet9"},
        {"name": "resnet8", "norm": "layer"},
        {"name": "resnet18", "width": 32},
        {"name": "resnet18", "stem": "odd"},
    ],
)
def test_a_network_that_does_not_exist_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="got"):
        build(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [*range(1, 70), 100, 119])
def test_a_width_has_equal_groups_or_is_refused_with_one_that_has(width: int) -> None:
    try:
        build("resnet8", width=width, norm="group")
    except ConfigError as refused:
        assert any(stage % max(1, stage // 16) for stage in (width, 2 * width, 4 * width))
        [other] = re.findall(r"such as (\d+)", str(refused))
        build("resnet8", width=int(other), norm="group")


def test_a_stem_of_another_kind_than_a_plain_convolution_is_kept_or_refused() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match=r'ScaledStdConv2dSame, has gain besides\. Set model\.stem = "native"'):
        build("timm/dm_nfnet_f0", num_classes=3)
    assert "stem.conv1.gain" in build("timm/dm_nfnet_f0", num_classes=3, stem="native").state_dict()


def test_a_checkpoint_comes_back_from_safetensors_and_from_a_state_dict(tmp_path: Path) -> None:
    model, twin = (build("resnet8", width=4, generator=torch_stream(seed, "m")) for seed in (1, 2))
    save_file(model.state_dict(), tmp_path / "m.safetensors", {"data": "digits"})
    torch.save({"state_dict": model.state_dict()}, tmp_path / "m.pth")
    for file in ("m.safetensors", "m.pth"):
        checkpoint = read_checkpoint(tmp_path / file)
        load_into(twin, checkpoint, file)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert read_checkpoint(tmp_path / "m.safetensors").metadata["data"] == "digits"


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("trap-sprung"),))  # type: ignore[return-value]


def test_no_code_runs_out_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Trap()}, tmp_path / "evil.pth")
    with pytest.raises(DataError, match="whole Python objects"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "trap-sprung").exists()


def test_a_truncated_or_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    model = build("resnet8", width=4)
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="truncated"):
        read_checkpoint(tmp_path / "m.safetensors")
    with pytest.raises(DataError, match="not there"):
        read_checkpoint(tmp_path / "absent.safetensors")


def test_a_checkpoint_of_another_network_is_refused_and_loads_nothing() -> None:
    model = build("resnet8", width=4)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    for other in (build("resnet8", width=8), build("resnet14", width=4)):
        with pytest.raises(DataError, match=r"another shape|unknown"):
            load_into(model, Checkpoint(other.state_dict()), "other")
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_imagenet_weights_belong_to_torchvisions_networks() -> None:
    with pytest.raises(DataError, match="torchvision"):
        imagenet(build("resnet8"), "resnet8")


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, its in SHIPPED.items() for data in its])
def test_shipped_weights_fit_their_network_and_say_where_they_come_from(name: str, data: str) -> None:
    checkpoint = read_checkpoint(shipped_path(name, data))
    assert checkpoint.metadata["data_set"] == data
    load_into(build(name, num_classes=len(checkpoint.tensors["fc.weight"])), checkpoint, name)
    assert {"data", "data_set", "cloud_share", "seed", "pretrain_epochs", "test_accuracy"} <= checkpoint.metadata.keys()
