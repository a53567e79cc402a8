"""Laws of learning rates that a search found: what settings do to them, and when a run remarks on its own."""

import pytest
from small_runs import tiny

from fed_lorac.adapters.lora_xs import LoraXs
from fed_lorac.adapters.mask import Mask
from fed_lorac.adapters.norm_affine import NormAffine
from fed_lorac.adapters.subspace import Subspace
from fed_lorac.adapters.vera_b import VeraB
from fed_lorac.experiment.build import build_experiment
from fed_lorac.simulation.rates import far_rate

FEDAVG = {"strategy__name": "fedavg"}


def test_a_rate_is_of_the_default_scale_and_of_what_is_trained() -> None:
    for kind in (LoraXs, VeraB, Subspace, Mask):
        default = kind()
        assert default.suggested_lr == kind.found_lr
        assert kind(lr_scale=10 * default.lr_scale).suggested_lr == pytest.approx(kind.found_lr / 10)
    alone = NormAffine(train_first_conv=False, train_classifier=False)
    assert alone.suggested_lr == pytest.approx(10 * NormAffine().suggested_lr)


@pytest.mark.parametrize(
    ("settings", "lr", "said"),
    [
        ({}, 0.05, ""),
        ({}, 0.3, "lora-c.*worse than with a smaller one"),
        ({"adapter__method": "full", **FEDAVG}, 0.01, "full.*slowly"),
        ({"adapter__method": "full", **FEDAVG}, 0.02, ""),
        ({"adapter__method": "lora-xs", "lr_scale": 10.0, **FEDAVG}, 0.1, "lora-xs"),
        ({"adapter__method": "norm-affine", "strategy__name": "zeroth-order"}, 0.05, "zeroth-order"),
        ({"adapter__method": "norm-affine", "strategy__name": "zeroth-order"}, 5.0, ""),
        ({"adapter__method": "linear-probe", **FEDAVG}, 9.0, ""),
        ({"adapter__method": "norm-affine + lora-xs", **FEDAVG}, 9.0, ""),
    ],
)
def test_a_run_remarks_on_a_rate_that_is_ten_times_off(settings: dict[str, object], lr: float, said: str) -> None:
    found = far_rate(build_experiment(tiny(**settings, local__lr=lr)))
    if not said:
        assert found is None
        return
    assert found is not None
    for part in said.split(".*"):
        assert part in found
