"""Laws of LoRA-C under a codec that loses something: A goes up as its change, and the server draws the rest."""

import copy

import pytest
import torch
from named_adapters import named_adapter
from small_runs import tiny
from torch import Tensor, nn

from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.aggregation.delta_sum import State, relative_distance, sum_states
from fed_lorac.experiment.build import build_experiment
from fed_lorac.experiment.experiment import to_delta
from fed_lorac.models import build
from fed_lorac.models.fingerprints import shapes_of
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.wire.frame import decode, encode

CODECS = ["fp16", "int8", "int4", "drive", "topk"]


def base() -> nn.Module:
    torch.manual_seed(0)
    return build("resnet8", width=8)


def trained(adapter: LoraC) -> nn.Module:
    """A network after a turn: every trained tensor has moved a little."""
    model = copy.deepcopy(base())
    adapter.attach(model, torch_stream(0, "adapter", 3))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.01 * torch.randn(p.shape, generator=draw))
    return model


def meaning(adapter: LoraC, state: dict[str, Tensor]) -> State:
    return dict(adapter.to_delta(base(), torch_stream(0, "adapter", 3))(state))


def off(adapter: LoraC, dtype: str) -> float:
    """How far a decoded delta is from the one that was trained."""
    state = adapter.read(trained(adapter))
    arrived = decode(encode(state, dtype=dtype, base="", rng=stream(0, "codec"), topk_share=0.05), base="")
    whole = LoraC(2, 4.0)
    exact = sum_states([(whole.read(trained(whole)), 1.0)], shapes_of(base()), 2.0)
    return relative_distance(sum_states([(meaning(adapter, arrived), 1.0)], shapes_of(base()), 2.0), exact)


def test_what_was_drawn_plus_its_delta_is_what_was_trained():
    adapter = LoraC(2, 4.0).relative_to_init()
    assert adapter.relative
    whole, change = LoraC(2, 4.0).read(trained(LoraC(2, 4.0))), adapter.read(trained(adapter))
    assert whole.keys() == change.keys()
    for key, value in meaning(adapter, change).items():
        assert torch.allclose(value, whole[key], atol=1e-7)
    assert max(float(change[key].abs().max()) for key in change if key.endswith(".A")) < 0.06  # A itself is up to 0.2


def test_a_state_goes_into_a_network_attached_alike():
    adapter = LoraC(2, 4.0).relative_to_init()
    state = adapter.read(trained(adapter))
    other = copy.deepcopy(base())
    adapter.attach(other, torch_stream(0, "adapter", 3))
    adapter.load(other, state)
    assert all(torch.allclose(value, state[key], atol=1e-7) for key, value in adapter.read(other).items())


def test_a_server_draws_what_a_camera_of_another_rank_drew():
    server, camera = LoraC(4, 8.0).relative_to_init(), LoraC(1, 2.0)
    whole, sent = camera.read(trained(camera)), camera.relative_to_init().read(trained(camera.relative_to_init()))
    for key, value in meaning(server, sent).items():
        assert torch.allclose(value, whole[key], atol=1e-7)


def test_where_no_convolution_has_factors_a_state_is_a_delta_as_it_stands():
    """Depthwise ones are trained as they are."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8, 10))
    for end_rank in (0, 1):
        adapter = LoraC(2, 4.0, end_rank=end_rank).relative_to_init().fit_to(net)
        model = copy.deepcopy(net)
        adapter.attach(model, torch_stream(0, "adapter"))
        said = adapter.to_delta(net, torch_stream(0, "adapter"))(state := adapter.read(model))
        assert said.keys() == state.keys() and adapter.dense == ("1",)
        assert all(tensor.any() == key.endswith(".A") for key, tensor in said.items())  # drawn, where an end has some


@pytest.mark.parametrize("dtype", CODECS)
def test_a_coarse_codec_leaves_more_of_the_delta(dtype: str):
    assert off(LoraC(2, 4.0).relative_to_init(), dtype) < 0.9 * off(LoraC(2, 4.0), dtype)


@pytest.mark.parametrize(
    ("changes", "relative"),
    [
        ({"codec.up": "drive"}, True),
        ({"codec.up": "drive", "strategy.name": "flora"}, True),
        ({"codec.up": "fp32"}, False),
        ({"codec.up": "drive", "strategy.name": "factor-fedavg"}, False),  # A lives on: what was drawn is long past
        ({"codec.up": "drive", "strategy.name": "flexlora"}, False),
    ],
)
def test_a_delta_is_sent_where_a_is_drawn_anew_and_the_codec_is_lossy(changes: dict[str, str], relative: bool):
    adapter = build_experiment(tiny(**changes)).adapter
    assert isinstance(adapter, LoraC) and adapter.relative == relative


def test_both_ends_draw_the_same():
    experiment = build_experiment(tiny(**{"codec.up": "drive"}))
    model = copy.deepcopy(experiment.base.model)
    experiment.adapter.attach(model, torch_stream(experiment.config.run.seed, "adapter", 5))
    plain = copy.deepcopy(experiment.base.model)
    named_adapter().attach(plain, torch_stream(experiment.config.run.seed, "adapter", 5))
    whole, told = LoraC(2, 4.0).read(plain), to_delta(experiment, 5)(experiment.adapter.read(model))
    assert all(torch.equal(told[key], whole[key]) for key in whole)
