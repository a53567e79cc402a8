"""What the neighbours' methods and ours send in the studies of their settings, weighed before anything is trained."""

import pytest

from fed_lorac.config import load_config
from fed_lorac.experiment.build import build_experiment, without_weights
from fed_lorac.simulation.forecast import bytes_to_come
from fed_lorac.studies.definition import Trial
from fed_lorac.studies.read import load_definition

FLOCORA = 256_842  # numbers: 1,227,594 are 4.8 times as many, as arXiv 2406.14082 has it with r = 32


def frames(study: str) -> dict[str, tuple[int, int]]:
    """Of each arm, a frame up and one down. They follow from shapes, so digits do for images."""
    found = load_definition(study)
    return {
        trial.arm: _frames(trial) for trial in found.trials({arm.name: {} for arm in found.arms})[: len(found.arms)]
    }


def _frames(trial: Trial) -> tuple[int, int]:
    of_cifar = ("data.", "fleet.", "run.fleet.")
    settings = {key: value for key, value in trial.config.to_flat().items() if not key.startswith(of_cifar)}
    few = {"fleet.cameras": 2, "fleet.per_round": 2, "fleet.images": 20, "fleet.corruptions": "none"}
    came = bytes_to_come(build_experiment(without_weights(load_config(None, {**settings, **few}))))
    assert came is not None
    return came.replies[0], came.update


@pytest.mark.slow
def test_fedmuds_rank_is_a_32nd_of_full_fine_tuning_and_ours_are_no_more() -> None:
    sent = frames("fedmud")
    full, theirs = sent.pop("full"), sent.pop("MUD + AAD, r = 13")
    assert all(32 * own == pytest.approx(whole, rel=0.005) for own, whole in zip(theirs, full, strict=True))
    for arm, both in sent.items():
        most = 0.252 if arm == "aad, r = 13, int8" else 1.0
        assert all(0.97 * most * own <= ours <= most * own for own, ours in zip(theirs, both, strict=True)), arm


@pytest.mark.slow
def test_flocoras_method_sends_what_it_published_and_ours_half_as_many_numbers() -> None:
    sent = frames("flocora")
    for codec, bits in (("int8", 8), ("int4", 4), ("drive", 1)):
        ours = sent[f"lora-c, B alone, r = 39, {codec}"]
        assert all(FLOCORA / 2 * bits / 8 == pytest.approx(own, rel=0.03) for own in ours)  # and scales
    for codec, bits in (("int8", 8), ("int4", 4)):
        theirs = sent[f"FLoCoRA, r = 32, {codec}"]
        assert all(1 < own / (FLOCORA * bits / 8) < 1.03 for own in theirs)
    assert round(1_227_594 / FLOCORA, 1) == 4.8
