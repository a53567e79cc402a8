"""Laws of the config: one truth in three places, nothing invalid gets through, and errors name the nearest key."""

import dataclasses
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_lorac.config import Config, FleetConfig, RunConfig, load_config, names, shipped_configs
from fed_lorac.config.load import flatten
from fed_lorac.config.whole import rules
from fed_lorac.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = Config().to_flat()
# Keys whose every valid value makes sense beside every default.
FREE = [
    *(
        "run.rounds",
        "run.seed",
        "run.precision",
        "run.fleet.round_timeout_s",
        "run.out",
        "data.root",
        "data.cifar10.cloud_share",
    ),
    *("fleet.dirichlet.alpha", "fleet.label_skew", "fleet.corruptions", "fleet.severities", "fleet.link"),
    *("adapter.rank", "adapter.alpha", "local.lr", "local.momentum", "strategy.quorum", "strategy.merged.downlink"),
]


def typed(flat: dict[str, Any]) -> dict[str, tuple[type, Any]]:
    return {key: (type(value), value) for key, value in flat.items()}


def values(key: str) -> st.SearchStrategy[Any]:
    rule = rules()[key]
    if rule.listed:
        return st.lists(st.sampled_from(rule.choices), min_size=1).map(", ".join)
    if rule.choices:
        return st.sampled_from(rule.choices)
    if rule.kind is int:
        return st.integers(int(rule.least), 2**63 - 1)
    if rule.kind is float:
        low, high = max(rule.least, rule.above, 0), min(rule.most, rule.below, 1e300)
        floats = st.floats(low, high)
        return floats.filter(lambda x: rule.above < x < rule.below)
    return st.text()


configs = st.fixed_dictionaries({}, optional={key: values(key) for key in FREE}).map(Config.from_flat)


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


# One truth


def test_the_app_config_the_dataclasses_and_quickstart_are_equal() -> None:
    app = flatten(pyproject()["tool"]["flwr"]["app"]["config"])
    quickstart = flatten(tomllib.loads((ROOT / "sim_configs" / "quickstart.toml").read_text()))
    assert typed(app) == typed(quickstart) == typed(DEFAULTS)


def test_flower_accepts_the_app_sections() -> None:
    from flwr.common.config import validate_config

    assert validate_config(pyproject(), check_module=False)[:2] == (True, [])


@pytest.mark.parametrize("name", shipped_configs())
def test_flower_fuses_every_shipped_config_to_what_we_load(name: str) -> None:
    from flwr.common.config import flatten_dict, fuse_dicts, parse_config_args

    app = flatten_dict(pyproject()["tool"]["flwr"]["app"]["config"])
    fused = fuse_dicts(app, parse_config_args([str(ROOT / "sim_configs" / f"{name}.toml")]))
    assert Config.from_flat(fused) == load_config(name)


def test_every_name_is_its_rooms_own() -> None:
    from fed_lorac.data.corruptions import CORRUPTIONS
    from fed_lorac.data.datasets import DATASETS
    from fed_lorac.fleet.links import LINKS
    from fed_lorac.models import MODELS
    from fed_lorac.models.torchvision_resnet import TORCHVISION

    assert set(names.CORRUPTIONS) == set(CORRUPTIONS)
    assert set(names.DATASETS) == set(DATASETS)
    assert set(names.LINKS) == set(LINKS)
    assert set(names.MODELS) == set(MODELS)
    assert set(names.TORCHVISION_MODELS) == set(TORCHVISION)


def test_every_setting_says_what_it_means() -> None:
    assert all(rule.meaning for rule in rules().values())


# Round trips


@given(configs)
def test_flat_and_toml_round_trip(config: Config) -> None:
    assert Config.from_flat(config.to_flat()) == config
    assert typed(flatten(tomllib.loads(config.to_toml()))) == typed(config.to_flat())


def test_absent_keys_have_the_defaults() -> None:
    assert Config.from_flat({}) == Config() == load_config()
    assert typed(Config.from_flat({"run.rounds": 3}).to_flat()) == typed(DEFAULTS | {"run.rounds": 3})


def test_a_config_is_frozen_and_hashable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().run.rounds = 3  # type: ignore[misc]
    assert len({Config(), Config.from_flat({})}) == 1


# Nothing invalid gets through


@pytest.mark.parametrize("key", DEFAULTS)
@pytest.mark.parametrize("value", [None, b"x", {}, 1.5j, [[1, 2]], [True], [{}]])
def test_what_is_no_scalar_is_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        Config.from_flat({key: value})


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_value_of_another_type_is_refused(key: str) -> None:
    kind = rules()[key].kind
    others: list[Any] = [v for v in (True, 1, 0, 1.0, "1") if type(v) is not kind]
    if kind is float:  # a whole number is a number
        others = [v for v in others if type(v) is not int]
    if rules()[key].listed:  # 3 is a list of one
        others = [True, [True]]
    for value in others:
        with pytest.raises(ConfigError, match=key):
            Config.from_flat({key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run.rounds", 0),
        ("run.seed", -1),
        ("run.seed", 2**63),
        ("run.fleet.round_timeout_s", 0.0),
        ("run.precision", "fp64"),
        ("model.weights", "shiped"),
        ("data.cifar10.cloud_share", 0.0),
        ("data.cifar10.cloud_share", 1),
        ("data.image_size", 30),
        ("fleet.corruptions", ""),
        ("fleet.corruptions", " , "),
        ("fleet.corruptions", "fog, hail"),
        ("fleet.severities", "3, 6"),
        ("fleet.severities", 0),
        ("fleet.link", "pigeon"),
        ("fleet.dirichlet.alpha", 0),
        ("adapter.alpha", 0.0),
        ("local.lr", float("nan")),
        ("local.lr", float("inf")),
        ("local.lr", 10**400),
        ("local.momentum", 1.0),
        ("local.weight_decay", -1e-9),
        ("strategy.quorum", 1.01),
        ("codec.up", "int7"),
    ],
)
def test_a_value_out_of_range_or_choice_is_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        Config.from_flat({key: value})


def test_whole_numbers_are_taken_where_numbers_are_wanted() -> None:
    assert typed({"lr": Config.from_flat({"local.lr": 1}).local.lr}) == {"lr": (float, 1.0)}
    assert Config.from_flat({"fleet.severities": 3}).fleet.severity_levels == (3,)


@pytest.mark.parametrize("text", ["true", "True", "TRUE", " true "])
def test_true_is_true_in_any_spelling(text: str) -> None:
    assert Config.from_flat({"adapter.lora-c.kernel_wise": text}).adapter.kernel_wise is True


@pytest.mark.parametrize("value", [["fog", "snow"], "[fog, snow]", '["fog", "snow"]', ("fog", "snow"), "fog,snow"])
def test_a_list_is_taken_as_toml_or_a_shell_writes_it(value: object) -> None:
    assert Config.from_flat({"fleet.corruptions": value}).fleet.corruption_names == ("fog", "snow")
    numbers = Config.from_flat({"fleet.severities": [3, 4], "fleet.speeds": [1, 2.5], "adapter.rank": [1, 2]})
    assert numbers.fleet.severity_levels == (3, 4)
    assert numbers.fleet.speed_factors == (1.0, 2.5)
    assert numbers.adapter.rank_list == (1, 2)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("run.rounds", 2.0, "got 2.0. Write 2."),
        ("run.rounds", 1e3, "got 1000.0. Write 1000."),
        ("run.rounds", 2.5, "got 2.5. Write a whole number such as 2 or 3."),
        ("run.rounds", 0.5, "got 0.5. Write a whole number such as 1."),
        ("run.rounds", -2.0, "got -2.0. Write a whole number such as 10."),
        ("run.rounds", "2", 'got the text "2". Write 2.'),
        ("run.rounds", "2_000", 'got the text "2_000". Write 2000.'),
        ("run.rounds", "many", 'got the text "many". Its default is 10.'),
        ("run.rounds", True, "got true. Its default is 10."),
        ("run.rounds", 0, "a whole number, at least 1; got 0. Its default is 10."),
        ("run.rounds", float("inf"), "got inf. Its default is 10."),
        ("run.seed", 2**63, "below 2^63; got 9223372036854775808. Its default is 0."),
        ("run.seed", "9007199254740993", "Write 9007199254740993."),
        ("local.lr", "0,5", 'got the text "0,5". Write 0.5.'),
        ("local.lr", "1,000", 'got the text "1,000". Its default is 0.05.'),
        ("local.lr", ".5", 'got the text ".5". Write 0.5.'),
        ("local.lr", float("nan"), "a finite number, above 0; got nan. Its default is 0.05."),
        ("adapter.lora-c.kernel_wise", "yes", 'must be true or false; got the text "yes". Write true.'),
        ("adapter.lora-c.kernel_wise", "OFF", 'got the text "OFF". Write false.'),
        ("adapter.lora-c.kernel_wise", 0, "got 0. Write false."),
        ("adapter.lora-c.kernel_wise", 1.0, "got 1.0. Write true or false."),
        ("adapter.train_classifier", "maybe", 'got the text "maybe". Write true or false.'),
        ("run.out", 2026, 'must be text in quotes; got 2026. Write "2026".'),
        ("run.out", date(2026, 1, 2), 'got the date 2026-01-02. Write "2026-01-02".'),
        ("codec.up", 32, 'got 32. Write one of "fp32", "fp16"'),
        ("fleet.link", True, 'must be words with commas between, such as "a, b"; got true. Write one of '),
        ("local.lr", [0.1], "must be a number; got the list [0.1]. Its default is 0.05."),
        ("local.lr", {"base": 0.1}, "must be a number; got the table {base = 0.1}."),
        ("run.out", "caf\udce9", r'text that UTF-8 can write; got the text "caf\udce9".'),
    ],
)
def test_a_remedy_is_in_tomls_spelling_and_made_of_what_came(key: str, value: object, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config.from_flat({key: value})
    assert str(error.value).startswith(f"{key} must be ") and told in str(error.value), error.value


def test_an_invalid_section_cannot_be_built_by_hand_either() -> None:
    with pytest.raises(ConfigError, match=r"run\.rounds"):
        RunConfig(rounds=0)
    with pytest.raises(ConfigError, match=r"fleet\.cameras"):
        dataclasses.replace(FleetConfig(), cameras=True)


@pytest.mark.parametrize(
    ("flat", "why"),
    [
        ({"fleet.per_round": 13}, "cannot draw more cameras"),
        ({"adapter.method": "full"}, "full fine-tuning is averaged as it is"),
        ({"strategy.name": "fedavg"}, 'Set adapter.method to "full"'),
        ({"strategy.name": "fedavg"}, "linear in, or the mean is not"),
        (
            {"adapter.method": "full", "strategy.name": "factor-fedavg"},
            'for this method strategy.name to "plain" or "full"',
        ),
        ({"adapter.method": "bn-affine", "strategy.name": "factor-fedavg"}, "factors A and B apart"),
        ({"adapter.method": "linear-probe", "strategy.name": "fedavg"}, 'strategy.name to "merged" or "plain"'),
        ({"adapter.method": "conv-lora", "strategy.name": "rotating-basis"}, "draw and freeze"),
        ({"strategy.name": "rotating-basis", "strategy.server_optimizer": "momentum"}, "new in each"),
        ({"strategy.name": "rotating-basis", "strategy.server_optimizer": "adam"}, "adam acts on dense deltas"),
        ({"strategy.name": "rotating-basis", "strategy.aggregator": "median"}, "median acts on dense deltas"),
        (
            {"adapter.method": "ffa-lora-c", "strategy.name": "fedavg", "strategy.server_optimizer": "yogi"},
            "mean of states",
        ),
        ({"adapter.method": "ffa-lora-c", "strategy.name": "fedavg", "strategy.aggregator": "krum"}, "mean of states"),
        (
            {"adapter.method": "full", "strategy.name": "fedavg", "adapter.lora-c.kernel_wise": True},
            "ablation of lora-c",
        ),
        ({"adapter.lora-c.kernel_wise": True, "adapter.lora-c.rank_mode": "r*k"}, "rank is r itself"),
        ({"model.name": "resnet18", "model.resnet8.norm": "group"}, "torchvision's"),
        ({"model.name": "resnet18", "model.resnet8.width": 16}, "torchvision's"),
        ({"model.weights": "imagenet"}, "ImageNet weights exist for"),
        ({"batch_norm.mode": "shared", "model.resnet8.norm": "group"}, "Only batch norm"),
        ({"data.cifar10.download": True}, "can be downloaded"),
        ({"data.name": "folder"}, "must be named"),
        ({"data.name": "cifar10c", "model.weights": "pretrain"}, "pretrained"),
    ],
)
def test_choices_that_contradict_one_another_are_refused_and_say_why(flat: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Config.from_flat(flat)


def test_all_contradictions_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)draw more cameras.*trains every parameter"):
        Config.from_flat({"fleet.per_round": 13, "strategy.name": "fedavg"})


def test_full_fine_tuning_makes_sense() -> None:
    config = Config.from_flat({"adapter.method": "full", "strategy.name": "fedavg", "model.name": "resnet18"})
    assert config.strategy.name == "full"


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("run.round", "run.rounds"),
        ("rounds", "run.rounds"),
        ("fleet.camera", "fleet.cameras"),
        ("fleet.rank", "adapter.rank"),
        ("RUN.ROUNDS", "run.rounds"),
        ("model.Name", "model.name"),
        ("batchnorm.mode", "batch_norm.mode"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(key: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"Did you mean '{near}"):
        Config.from_flat({key: 1})


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("local.learning_rate", r"Those of \[local\] are epochs, .*, lr, "),
        ("wandb.project", r"The sections are run, .*quickstart\.toml"),
        ("fleet", r"it is a section, .* below \[fleet\]"),
    ],
)
def test_an_unknown_key_that_is_near_to_none_is_told_which_there_are(key: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"There is no setting '{key}'.*{told}") as error:
        Config.from_flat({key: 1})
    assert "Did you mean" not in str(error.value)


def test_a_whole_foreign_file_is_refused_in_a_few_lines() -> None:
    with pytest.raises(ConfigError, match="So it is with 40 more keys") as error:
        Config.from_flat({f"tool.key{n}": n for n in range(50)})
    assert len(str(error.value).splitlines()) == 11


def test_an_unknown_choice_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'gausian_noise'.*Did you mean 'gaussian_noise'"):
        Config.from_flat({"fleet.corruptions": "fog, gausian_noise"})
    with pytest.raises(ConfigError, match=r"one of fp32, .*; got 'xyzzy'\.$"):
        Config.from_flat({"codec.up": "xyzzy"})


@pytest.mark.parametrize(
    ("share", "drawn", "needed"), [(0.5, 12, 6), (0.5, 5, 3), (0.0, 5, 1), (1.0, 7, 7), (0.1, 30, 3), (0.34, 3, 2)]
)
def test_a_quorum_is_the_share_of_the_drawn_rounded_up(share: float, drawn: int, needed: int) -> None:
    flat = {"strategy.quorum": share, "fleet.per_round": drawn, "fleet.cameras": 30}
    assert Config.from_flat(flat).quorum_cameras == needed


def test_lists_are_parsed_to_tuples() -> None:
    fleet = FleetConfig(corruptions="fog,snow , fog,", severities="5, 1", link="lte-m, 4g")
    assert fleet.corruption_names == ("fog", "snow", "fog")
    assert fleet.severity_levels == (5, 1)
    assert fleet.link_names == ("lte-m", "4g")
