"""Networks of torchvision and timm: every CNN by its name, its stem and its weights; others are refused, with why."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from fed_lorac.config import load_config
from fed_lorac.errors import ConfigError, DataError
from fed_lorac.experiment.base_model import fresh_model
from fed_lorac.models import build, check_outputs, described, said_settings, timm_networks, torchvision_networks
from fed_lorac.models.libraries import Libraries
from fed_lorac.models.stems import first_convolution
from fed_lorac.models.weights import imagenet
from fed_lorac.runtime.normalization import IMAGENET

SMALLEST = {
    "resnet18": (7, 32, 4),
    "resnext50_32x4d": (7, 32, 4),
    "wide_resnet50_2": (7, 32, 4),
    "densenet121": (7, 32, 4),
    "shufflenet_v2_x0_5": (3, 32, 4),
    "mobilenet_v2": (3, 32, 2),
    "mobilenet_v3_small": (3, 32, 2),
    "mnasnet0_5": (3, 32, 2),
    "efficientnet_b0": (3, 32, 2),
    "efficientnet_v2_s": (3, 32, 2),
    "regnet_y_400mf": (3, 32, 2),
    "convnext_tiny": (4, 32, 4),
    "squeezenet1_1": (3, 32, 8),
    "alexnet": (11, 32, 15),
    "vgg11_bn": (3, 32, 2),
}
"""A small one of each family -> side of its first filters as published; of the first and last maps, with the stem for
small images of 32 pixels."""


def sides(model: nn.Module, pixels: int) -> list[int]:
    """The side of each convolution's map, in the order of their calls."""
    found: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, args, made: found.append(made.shape[-1]))
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 3, pixels, pixels)).shape == (1, 7)
    return found


QUICK = [*SMALLEST][4:8]


@pytest.mark.parametrize("name", QUICK)
def test_a_stem_for_small_images_keeps_their_resolution(name: str) -> None:
    kernel, first, last = SMALLEST[name]
    model, published = build(name, num_classes=7), build(name, num_classes=7, stem="native")
    conv = model.get_submodule(first_convolution(model))
    assert isinstance(conv, nn.Conv2d)
    assert (conv.kernel_size, conv.stride) == ((3, 3), (1, 1))
    assert published.get_submodule(first_convolution(published)).kernel_size == (kernel, kernel)
    found = sides(model, 32)
    assert (found[0], found[-1]) == (first, last)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SMALLEST if name not in QUICK])
def test_a_stem_for_small_images_keeps_their_resolution_in_every_family(name: str) -> None:
    test_a_stem_for_small_images_keeps_their_resolution(name)


def test_a_native_stem_is_the_published_network() -> None:
    pair = build("shufflenet_v2_x0_5", stem="native"), torchvision.models.shufflenet_v2_x0_5(num_classes=10)
    ours, theirs = ([(key, tensor.shape) for key, tensor in one.state_dict().items()] for one in pair)
    assert ours == theirs


def test_every_torchvision_network_is_of_a_family_or_refused_with_the_reason() -> None:
    refused = {
        name: reason(name)
        for name in torchvision.models.list_models(module=torchvision.models)
        if name not in torchvision_networks.names()
    }
    assert {name.partition("_")[0] for name in refused} == {"vit", "swin", "maxvit", "googlenet", "inception"}
    assert all("without a convolution beyond its stem" in why for name, why in refused.items() if name[:3] == "vit")
    families = tuple(torchvision_networks.FAMILIES)
    assert all(name.startswith(families) for name in torchvision_networks.names())
    assert {"resnet152", "wide_resnet101_2", "convnext_base", "regnet_y_400mf"} <= set(torchvision_networks.names())


def reason(name: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load_config(None, [f"model.name={name}", "model.weights=none"])
    return str(raised.value)


def test_a_name_that_nobody_has_is_refused_with_the_nearest() -> None:
    assert "Did you mean 'mobilenet_v3_small'?" in reason("mobilnet_v3_smal")
    assert "Did you mean 'resnet20'?" in reason("resnet_20")


def test_names_of_timm_are_taken_with_or_without_a_tag_and_transformers_are_not() -> None:
    pytest.importorskip("timm")
    for name in ("timm/test_resnet", "timm/resnet26.bt_in1k"):
        assert load_config(None, [f"model.name={name}", "model.weights=none"]).model.name == name
    assert "vision_transformer, which is none" in reason("timm/vit_tiny_patch16_224")
    assert "Did you mean 'timm/resnet26'?" in reason("timm/resnt26")
    model = fresh_model(load_config(None, ["model.name=timm/test_resnet", "model.weights=none"]), 7)
    assert sides(model, 32)[0] == 32


def test_a_networks_weights_come_from_the_runs_seed() -> None:
    names = ["shufflenet_v2_x0_5", *(["timm/test_resnet"] if timm_networks.names() else [])]
    for name in names:
        one, other = build(name).state_dict(), build(name).state_dict()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_file_of_weights_says_its_stem() -> None:
    for stem in ("cifar", "native"):
        said = described("shufflenet_v2_x0_5", {"stem": stem})
        assert said == {"model": "shufflenet_v2_x0_5", "stem": stem} and said_settings(said) == {"stem": stem}
    assert said_settings({"model": "resnet18", "width": "64"}) == {"stem": "cifar"}  # of before there were two


def test_a_stem_is_chosen_where_there_is_one() -> None:
    with pytest.raises(ConfigError, match=r'model\.stem has no meaning under model\.name = "resnet8"'):
        load_config(None, ["model.stem=native"])
    config = load_config(None, ["model.name=mnasnet0_5", "model.stem=native", "model.weights=none"])
    assert config.model.settings("name") == {"stem": "native"}


def test_images_that_are_too_small_are_told_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"fails on 32x32: .* Set another data\.image_size, or another model\.stem"):
        check_outputs("alexnet", torchvision.models.alexnet(num_classes=7), 7, 32)


def test_published_weights_bring_their_own_normalization() -> None:
    found = Libraries.published("efficientnet_v2_l")
    assert found is not None and found.normalization.text == "half"
    assert Libraries.published("resnet20") is None
    for name in torchvision_networks.names():
        one = torchvision_networks.published(name)
        assert one.url.endswith(one.file) and one.hash_prefix, name


def test_timms_weights_are_looked_for_under_their_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = timm_networks.published("timm/test_resnet")
    assert found.path == tmp_path / "hub/checkpoints/test_resnet.r160_in1k.safetensors"
    source = timm.create_model("test_resnet", num_classes=1000)
    found.path.parent.mkdir(parents=True)
    save_file(source.state_dict(), found.path)
    model = build("timm/test_resnet", stem="native")
    loaded = imagenet(model, "timm/test_resnet")
    assert loaded.notes == ("its classifier is drawn anew: train it with `fed-lorac pretrain`",)
    assert torch.equal(model.get_submodule(first_convolution(model)).weight, source.conv1[0].weight)
    assert found.normalization.mean != IMAGENET.mean or found.normalization == IMAGENET
    save_file({"conv1.weight": torch.zeros(1)}, found.path)
    with pytest.raises(DataError, match="missing"):
        imagenet(model, "timm/test_resnet")


@pytest.mark.parametrize("name", ["mnasnet0_5", "densenet121", "mobilenet_v2", "squeezenet1_1"])
def test_torchvisions_files_load_whatever_their_networks_ask_of_a_state_dict(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = torchvision.models.get_model(name, weights=None)
    state = {
        key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): t for key, t in source.state_dict().items()
    }
    path = torchvision_networks.published(name).path
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    model = build(name, num_classes=7, stem="cifar")
    notes = imagenet(model, name).notes
    assert ("stem" in notes[-1]) == (name == "densenet121")  # 3x3 filters stay what they are at another stride
    own, theirs = model.state_dict(), source.state_dict()
    middle = list(own)[len(own) // 2]
    assert torch.equal(own[middle], theirs[middle])
    assert any("renamed" in note for note in notes) == (name == "densenet121")


def test_help_and_the_door_import_neither_library() -> None:
    script = "import sys, fed_lorac.cli, fed_lorac.config.load as c; c.load_config('quickstart'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torchvision", "timm"} & set(done.stdout.split())
