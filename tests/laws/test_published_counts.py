"""Parameter counts of papers on grouped networks: what follows from a formula, and what does not."""

from collections import Counter
from collections.abc import Mapping

import pytest
import torch
import torchvision
from torch import Tensor, nn

from fed_lorac.adapters.conv_adapter import ConvAdapter
from fed_lorac.adapters.filter_atoms import FilterAtoms
from fed_lorac.adapters.lorae import Lorae
from fed_lorac.seeds import torch_stream

pytestmark = pytest.mark.slow  # networks of up to 88 million weights


def network(name: str, classes: int) -> nn.Module:
    """torchvision's, with zeros for weights, each one number seen as many."""
    with torch.device("meta"):
        model: nn.Module = getattr(torchvision.models, name)(num_classes=classes)
    for module in model.modules():
        for own, p in module.named_parameters(recurse=False):
            module.register_parameter(own, nn.Parameter(torch.zeros(()).expand(p.shape)))
        for own, buffer in module.named_buffers(recurse=False):
            module.register_buffer(own, torch.zeros((), dtype=buffer.dtype).expand(buffer.shape))
    return model


def counted(adapter: ConvAdapter, model: nn.Module) -> Mapping[str, int]:
    """How many numbers of a state are of each kind: "A", "B", "D", "Dc", "weight"."""
    adapter.attach(model, torch_stream(0, "A"))
    found: Counter[str] = Counter()
    for name, tensor in adapter.read(model).items():
        found[name.rpartition(".")[2]] += tensor.numel()
    return found


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}


def lorae(weight: Tensor, rank: int) -> int:
    """r (in K_h K_w + out)."""
    out, *kernel = weight.shape
    return rank * (weight[0].numel() + out) if kernel else 0


def test_efficientnet_b1_with_lorae_is_larger_than_the_paper_says_unless_only_plain_1x1_convolutions_count() -> None:
    """Paper: 7.79 M in all, 2.14 M at r = 64."""
    model = network("efficientnet_b1", 1000)
    assert sum(p.numel() for p in model.parameters()) == 7_794_184
    convs = convolutions(model)
    plain = [c for name, c in convs.items() if c.kernel_size == (1, 1) and ".fc" not in name]
    excited = [c for name, c in convs.items() if ".fc" in name]
    deep = [c for c in convs.values() if c.groups > 1]
    assert (len(plain), len(excited), len(deep)) == (45, 46, 23)
    assert sum(lorae(c.weight, 64) for c in plain) == 2_148_352  # the paper's, to half a per cent
    found = counted(Lorae(rank=64), network("efficientnet_b1", 100))
    assert found["A"] + found["B"] == 2_148_352 + sum(lorae(c.weight, 64) for c in excited) == 3_960_832
    assert found["weight"] == sum(c.weight.numel() for c in deep) + 32 * 27 + 100 * 1280 == 385_520


def test_at_a_low_rank_depthwise_convolutions_have_factors() -> None:
    model = network("efficientnet_b1", 100)
    inner = list(convolutions(model).values())[1:]
    found = counted(Lorae(rank=2), model)
    assert found["A"] + found["B"] == sum(lorae(c.weight, 2) for c in inner) == 151_742
    assert found["weight"] == 32 * 27 + 100 * 1280


@pytest.mark.parametrize(
    ("name", "full", "ends", "atoms"),
    [
        ("convnext_base", 87_668_964, 128 * 48 + 100 * 1024, 15_984),
        ("resnet50", 23_712_932, 64 * 147 + 100 * 2048, 1_296),
    ],
)
def test_filter_atoms_of_large_networks_are_a_few_thousand_numbers(name: str, full: int, ends: int, atoms: int) -> None:
    """With m = 9, by the formula; attached with m = 4: more atoms than a 2x2 kernel has numbers take half a minute."""
    model = network(name, 100)
    assert sum(p.numel() for p in model.parameters()) == full
    kernels = [c.weight[0, 0].numel() for c in list(convolutions(model).values())[1:]]
    assert 9 * sum(numbers for numbers in kernels if numbers > 1) == atoms
    assert counted(FilterAtoms(atoms=4, kc=4), model) == {
        "D": 4 * sum(numbers for numbers in kernels if numbers > 1),
        "weight": ends,
        **({"Dc": 4 * 16 * kernels.count(1)} if 1 in kernels else {}),
    }


def test_the_papers_convnext_counts_linear_layers_biases_and_norms_besides() -> None:
    """0.3 M: the authors' release puts atoms on the linear layers too, and trains the classifier with its bias."""
    model = network("convnext_base", 100)
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    vectors = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 1 or "layer_scale" in n)
    weights = 9 * sum(c.weight[0, 0].numel() for c in list(convolutions(model).values())[1:])
    in_linear = 9 * 16 * (len(linear) - 1)
    assert weights + in_linear + linear[-1].weight.numel() + vectors == 297_300
