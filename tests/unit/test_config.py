"""Laws of the config: one truth in three places, nothing invalid gets through, and errors name the nearest key."""

import dataclasses
import pickle
import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_lorac import registry
from fed_lorac.config import (
    Config,
    FleetConfig,
    Front,
    LimitedDevices,
    RayWorkers,
    RunConfig,
    gone,
    load_config,
    load_to_pretrain,
    names,
    shipped_configs,
)
from fed_lorac.config.load import flatten
from fed_lorac.config.whole import SECTIONS, rules
from fed_lorac.config.write import flower_table, options_with, pyproject_with, quickstart
from fed_lorac.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = Config().to_flat()
ALL = rules() | {
    f"{name}.{table}.{key}": rule
    for name, section in SECTIONS.items()
    for table, choices in section.known_tables().items()
    for key, rule in section.table_rules(choices[0], table).items()
}
"""Every built-in setting, in force or not."""
# Keys whose every valid value makes sense beside every default.
FREE = [
    *("run.rounds", "run.seed", "run.precision", "run.round_timeout_s", "run.out", "strategy.sgd.lr"),
    *("fleet.label_skew", "fleet.corruptions", "fleet.severities", "fleet.link"),
    *("adapter.rank", "adapter.alpha", "local.lr", "local.momentum", "strategy.quorum", "strategy.merged.downlink"),
]


def typed(flat: dict[str, Any]) -> dict[str, tuple[type, Any]]:
    return {key: (type(value), value) for key, value in flat.items()}


def values(key: str) -> st.SearchStrategy[Any]:
    rule = ALL[key]
    if rule.listed and not rule.choices:
        return st.lists(st.integers(1, 99), min_size=1)
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


def test_the_files_that_repeat_the_settings_are_as_they_are_written() -> None:
    project, page = (ROOT / "pyproject.toml").read_text(), (ROOT / "docs" / "settings.md").read_text()
    assert page == options_with(page)
    assert (ROOT / "sim_configs" / "quickstart.toml").read_text() == quickstart()
    assert project == pyproject_with(project, flower_table())


@pytest.mark.parametrize("kind", ["ADAPTERS", "STRATEGIES", "CODECS", "OBJECTIVES", "DATASETS"])
def test_the_pages_choices_are_all_that_there_are(kind: str) -> None:
    choices = (ROOT / "docs" / "settings.md").read_text().partition("## Choices")[2].partition("\n## ")[0]
    assert {name for name in getattr(registry, kind).names if f"`{name}`" not in choices} == set()


def test_flowers_table_has_every_setting_and_is_the_default_config() -> None:
    app = flatten(tomllib.loads(flower_table()))
    assert set(app) - set(ALL) == {f"{name}.options" for name, section in SECTIONS.items() if section.own_parts()}
    assert Config.from_flat(app) == Config() == load_config("quickstart")


def test_flower_accepts_the_app_sections() -> None:
    from flwr.common.config import validate_config

    assert validate_config(pyproject(), check_module=False)[:2] == (True, [])


def test_flower_fuses_every_shipped_config_to_what_we_load() -> None:
    from flwr.common.config import flatten_dict, fuse_dicts, parse_config_args

    app = flatten_dict(pyproject()["tool"]["flwr"]["app"]["config"])
    for name in shipped_configs():
        fused = fuse_dicts(app, parse_config_args([str(ROOT / "sim_configs" / f"{name}.toml")]))
        assert Config.from_flat(fused) == load_config(name)


def test_every_name_is_its_rooms_own() -> None:
    from fed_lorac.models.stems import STEMS
    from fed_lorac.wire.codecs.codecs import CODECS

    assert {name: registry.LINKS.make(name).name for name in registry.LINKS.names} == {
        n: n for n in registry.LINKS.names
    }
    assert {name: registry.CODECS.load(name) for name in registry.CODECS.names} == CODECS
    assert registry.MODELS.names == names.CIFAR_MODELS
    assert names.STEMS == STEMS


KINDS = [kind for kind in vars(registry).values() if isinstance(kind, registry.Kind)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.group)
def test_every_built_in_name_stands_for_something(kind: registry.Kind) -> None:
    assert all(callable(kind.load(name)) or kind.form == "value" for name in kind.names)


def test_every_setting_says_what_it_means() -> None:
    assert all(rule.meaning for rule in ALL.values())


BRINGS: dict[str, object] = {
    "lorawan": "lorawan-dr0",
    "nb-iot": "nb-iot-nb2",
    "parts": "norm-affine + lora-c",
}
"""Tables whose name is not what brings them."""


def brings(section: str, choice: str, table: str) -> dict[str, object]:
    """The choice that brings a table, and what that has a meaning under."""
    return {f"{section}.{choice}": BRINGS.get(table, table)} | ({"run.workers": 2} if table == "ray" else {})


def test_a_bare_key_or_a_flat_config_reaches_every_setting_of_a_table() -> None:
    for name, section in SECTIONS.items():
        for table, choices in section.known_tables().items():
            chosen = brings(name, choices[0], table)
            if name == "adapter":
                chosen["strategy.name"] = "local-only"
            if table == "zeroth-order":
                chosen["adapter.method"] = "norm-affine"
            if table == "atp":
                chosen["batch_norm.mode"] = "frozen"
            if name == "data":
                chosen["data.root"] = "somewhere"
            for key, rule in section.table_rules(choices[0], table).items():
                flat = load_config(None, chosen | {f"{name}.{table}.{key}": rule.default}).to_flat()
                assert flat[f"{name}.{table}.{key}"] == rule.default
                assert Config.from_flat(flat).to_flat() == flat


# Round trips


@given(configs)
def test_flat_and_toml_round_trip(config: Config) -> None:
    assert Config.from_flat(config.to_flat()) == config
    assert typed(flatten(tomllib.loads(config.to_toml()))) == typed(config.to_flat())


def test_absent_keys_have_the_defaults() -> None:
    assert Config.from_flat({}) == Config() == load_config()
    assert typed(Config.from_flat({"run.rounds": 3}).to_flat()) == typed(DEFAULTS | {"run.rounds": 3})
    assert Config.from_flat({"run.rounds": 3}).changed() == {"run.rounds": 3}


def test_a_config_is_frozen_hashable_and_travels() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().run.rounds = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        Config().run.tables["fleet"]["block_size"] = 3  # type: ignore[index]
    assert len({Config(), Config.from_flat({})}) == 1
    assert pickle.loads(pickle.dumps(KRUM)) == KRUM != Config()  # noqa: S301  (our own bytes)


# Options


KRUM = load_config(None, ["strategy.aggregator=krum", "strategy.krum.malicious=2"])


def test_a_table_is_there_where_its_choice_is_made() -> None:
    assert KRUM.strategy.tables["krum"] == {"malicious": 2}
    assert KRUM.strategy.settings("aggregator") == {"malicious": 2}
    assert "krum" not in Config().strategy.tables and "strategy.krum.malicious" not in DEFAULTS
    assert "[strategy.krum]" in KRUM.to_toml() and "[strategy.krum]" not in Config().to_toml()
    front = load_config(None, ["fleet.schedule=front", "fleet.front.lag=2"]).fleet
    assert (front.table(Front), Config().fleet.table(Front)) == (Front(lag=2.0), Front())


def test_an_option_whose_choice_is_not_made_is_refused_even_at_its_default() -> None:
    for override, told in (
        ("strategy.krum.malicious=1", r'\[strategy\.krum\] is for strategy\.aggregator = "krum"; .*is "mean"\. Remove'),
        ("model.pretrain.epochs=70", r'is for model\.weights = "pretrain"; model\.weights is "shipped"'),
        ("codec.topk.share=0.1", r'is for codec\.up = "topk" or codec\.down = "topk"; codec\.up is "fp32" and'),
        ("model.resnet20.width=4", r'is for model\.name = "resnet20"; model\.name is "resnet8"'),
        ("strategy.mean.noise=1", r"no table \[strategy\.mean\]: mean has no settings of its own"),
        ("strategy.krumm.malicious=1", r"no table \[strategy\.krumm\]\. Did you mean 'krum'"),
        ("strategy.options.x=1", r"has the settings of a name of your own"),
    ):
        with pytest.raises(ConfigError, match=told):
            load_config(None, [override])
    with pytest.raises(ConfigError, match="or choose krum"):
        Config.from_flat({"strategy.krum.malicious": 2})
    assert Config.from_flat({"strategy.krum.malicious": 1}) == Config()  # as Flower's run-config carries it


def test_a_table_has_no_other_keys() -> None:
    with pytest.raises(
        ConfigError, match=r"no setting 'strategy\.merged\.svdrank'\. Did you mean 'strategy\.merged\.svd_rank'"
    ):
        Config.from_flat({"strategy.merged.svdrank": 1})
    with pytest.raises(ConfigError, match=r"Those of \[strategy\.merged\] are downlink, svd_rank"):
        Config.from_flat({"strategy.merged.xyzzy": 1})
    with pytest.raises(ConfigError, match=r"strategy\.merged\.svd_rank must be a whole number, at least 0"):
        Config.from_flat({"strategy.merged.svd_rank": -1})


def test_a_value_in_view_that_the_chosen_method_does_not_have_is_refused() -> None:
    for rank in (4, 2):
        with pytest.raises(ConfigError, match=r'adapter\.rank has no meaning under adapter\.method = "norm-affine"'):
            load_config(None, ["adapter.method=norm-affine", f"adapter.rank={rank}"])
    with pytest.raises(ConfigError, match=r"adapter\.rank has no meaning"):
        Config.from_flat({"adapter.method": "norm-affine", "adapter.rank": 4})
    assert "adapter.rank" not in load_config({"adapter.rank": 4}, ["adapter.method=norm-affine"]).to_flat()
    for flat, needs in WITHOUT_MEANING:
        with pytest.raises(ConfigError, match=f"has no meaning under .*set {needs}"):
            load_config(flat)
        assert load_config(flat | MADE[next(iter(flat))]).changed() == flat | MADE[next(iter(flat))]


WITHOUT_MEANING: list[tuple[dict[str, object], str]] = [
    ({"data.root": "x"}, r"data\.name to a data set that is read from a folder"),
    ({"fleet.link_assignment": "random"}, r"fleet\.link to several links"),
    ({"local.steps": 3}, r"local\.epochs to 0"),
    ({"model.normalization": "half"}, r"model\.weights to others"),
    ({"codec.error_feedback": True}, r"codec\.up to a codec that loses something"),
]
MADE: dict[str, dict[str, object]] = {
    "data.root": {"data.name": "cifar10"},
    "fleet.link_assignment": {"fleet.link": "lte-m, 4g"},
    "local.steps": {"local.epochs": 0},
    "model.normalization": {"model.weights": "none"},
    "codec.error_feedback": {"codec.up": "int8", "strategy.name": "factor-fedavg"},
}


def test_a_base_that_is_to_be_trained_starts_from_no_shipped_weights() -> None:
    asked = ["model.normalization=half", "model.resnet20.width=4"]
    assert load_to_pretrain("fog_snow_noise", asked) == load_config("fog_snow_noise", [*asked, "model.weights=none"])
    assert load_to_pretrain(None, ["model.weights=base.pth"]).model.weights == "base.pth"


def test_several_workers_bring_a_table() -> None:
    with pytest.raises(
        ConfigError, match=r"\[run\.ray\] is for a pool. run\.pool has no meaning under run\.workers = 1"
    ):
        load_config(None, ["run.ray.address=auto"])
    with pytest.raises(ConfigError, match=r"\[run\.ray\] is for run\.pool = \"ray\"; run\.pool is \"threads\""):
        load_config(None, ["workers=2", "pool=threads", "run.ray.address=auto"])
    with pytest.raises(ConfigError, match=r"Flower's runtime trains cameras in Ray's processes; got .* \"threads\""):
        load_config(None, ["run.engine=flower", "workers=2", "pool=threads"])
    with pytest.raises(ConfigError, match=r"run\.pool has no meaning under run\.workers = 1"):
        load_config(None, ["pool=threads"])
    assert load_config(None, ["workers=2", "address=auto"]).run.table(RayWorkers).address == "auto"
    with pytest.raises(ConfigError, match="knows no blocks"):
        load_config(None, ["run.engine=flower", "workers=2", "block_timeout_s=3"])


def test_a_key_that_two_tables_have_is_the_one_with_that_choice() -> None:
    found = load_config(None, ["downlink=multicast"])
    assert (
        found.fleet.tables["lte-m"]["downlink"] == "multicast" and found.strategy.settings("name")["downlink"] == "svd"
    )
    assert load_config(None, {"downlink": "dense"}).strategy.settings("name")["downlink"] == "dense"
    with pytest.raises(ConfigError, match=r"may be any of fleet\.lte-m\.downlink, strategy\.merged\.downlink"):
        load_config(None, ["downlink=both"])


def test_about_forty_keys_are_in_view() -> None:
    assert len([key for key in DEFAULTS if key.count(".") == 1]) <= 47


def test_another_choice_takes_the_files_options_with_it() -> None:
    assert load_config(KRUM, ["strategy.aggregator=median"]).changed() == {"strategy.aggregator": "median"}
    assert KRUM.strategy.choose("aggregator", "mean") == Config().strategy
    assert KRUM.strategy.choose("aggregator", "clipped", noise=0.5).tables["clipped"]["noise"] == 0.5
    with pytest.raises(ConfigError, match="or choose krum"):
        load_config(KRUM, ["strategy.aggregator=median", "strategy.krum.malicious=1"])


def test_old_names_are_refused_with_the_new_one() -> None:
    for override, told in (
        ("strategy.centre=krum", r"strategy\.centre is now strategy\.aggregator\. Write that"),
        ("run.cohort_size=3", r"run\.fleet\.block_size"),
        ("cohort_size=3", r"run\.fleet\.block_size"),
        ("codec.topk_share=0.1", r"codec\.topk\.share"),
        ("strategy.name=plain", r'strategy\.name = "plain" is now strategy\.name = "fedavg"'),
        ("adapter.method=lora-c-ffa", r'"ffa-lora-c"'),
        ("strategy.server_optimizer=average", r'"sgd"'),
    ):
        with pytest.raises(ConfigError, match=told):
            load_config(None, [override])


def test_no_old_name_is_a_setting_and_each_new_one_is() -> None:
    for old, new in gone.KEYS.items():
        assert old not in ALL
        keys = re.findall(r"[a-z_]+(?:\.[a-z0-9_-]+)+(?![.A-Z])", re.sub(r"\w+\.(NAME|METHOD)\.\w+", "", new))
        assert all(key in ALL for key in keys), (old, keys)
    for (key, old), new in gone.VALUES.items():
        assert old not in ALL[key].choices and new in ALL[key].choices


# Nothing invalid gets through


def test_a_value_of_another_type_is_refused() -> None:
    for key, rule in ALL.items():
        choice = _choice_of(key) if key.count(".") == 2 else {}
        others: list[Any] = [None, b"x", {}, 1.5j, [[1, 2]], [True], [{}]]
        others += [v for v in (True, 1, 0, 1.0, "1") if type(v) is not rule.kind]
        if rule.kind is float:  # a whole number is a number
            others = [v for v in others if type(v) is not int]
        if rule.listed:  # 3 is a list of one
            others = [None, b"x", {}, 1.5j, [[1, 2]], [True], [{}], True]
        for value in others:
            with pytest.raises(ConfigError, match=re.escape(key)):
                Config.from_flat(choice | {key: value})


def _choice_of(key: str) -> dict[str, object]:
    section, table, _ = key.split(".")
    return brings(section, SECTIONS[section].known_tables()[table][0], table)


def test_a_value_out_of_range_or_choice_is_refused() -> None:
    for key, value in (
        ("run.rounds", 0),
        ("run.seed", -1),
        ("run.seed", 2**63),
        ("run.round_timeout_s", 0.0),
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
        ("fleet.limited.speeds", "1, 0"),
        ("adapter.alpha", 0.0),
        ("adapter.rank", 0),
        ("adapter.rank", "1, two"),
        ("adapter.rank", ""),
        ("local.lr", float("nan")),
        ("local.lr", float("inf")),
        ("local.lr", 10**400),
        ("local.momentum", 1.0),
        ("local.weight_decay", -1e-9),
        ("strategy.quorum", 1.01),
        ("codec.up", "int7"),
    ):
        with pytest.raises(ConfigError, match=re.escape(key)):
            Config.from_flat((_choice_of(key) if key.count(".") == 2 else {}) | {key: value})


def test_whole_numbers_are_taken_where_numbers_are_wanted() -> None:
    assert typed({"lr": Config.from_flat({"local.lr": 1}).local.lr}) == {"lr": (float, 1.0)}
    assert Config.from_flat({"fleet.severities": 3}).fleet.severity_levels == (3,)


def test_true_is_true_in_any_spelling() -> None:
    for text in ("true", "True", "TRUE", " true "):
        assert Config.from_flat({"codec.error_feedback": text, "codec.up": "int8", "strategy.name": "factor-fedavg"})
        assert Config.from_flat({"adapter.lora-c.kernel_wise": text}).adapter.tables["lora-c"]["kernel_wise"] is True


def test_a_list_is_taken_as_toml_or_a_shell_writes_it() -> None:
    for value in (["fog", "snow"], "[fog, snow]", '["fog", "snow"]', ("fog", "snow"), "fog,snow"):
        assert Config.from_flat({"fleet.corruptions": value}).fleet.corruption_names == ("fog", "snow")
    flat = {"fleet.devices": "limited", "fleet.limited.speeds": [1, 2.5]}
    numbers = Config.from_flat({"fleet.severities": [3, 4], "adapter.rank": [1, 2], **flat})
    assert numbers.fleet.severity_levels == (3, 4)
    assert numbers.fleet.table(LimitedDevices).speed_factors == (1.0, 2.5)
    assert (numbers.adapter.ranks, numbers.adapter.rank) == ((1, 2), "1, 2")
    for one in ([3], "3", 3, "[3]"):
        assert typed({"rank": Config.from_flat({"adapter.rank": one}).adapter.rank}) == {"rank": (int, 3)}


def test_a_remedy_is_in_tomls_spelling_and_made_of_what_came() -> None:
    for key, value, told in REMEDIES:
        with pytest.raises(ConfigError) as error:
            Config.from_flat({key: value})
        assert str(error.value).startswith(f"{key} must be ") and told in str(error.value), error.value


REMEDIES: list[tuple[str, object, str]] = [
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
    ("adapter.lora-c.train_classifier", "maybe", 'got the text "maybe". Write true or false.'),
    ("run.out", 2026, 'must be text in quotes; got 2026. Write "2026".'),
    ("run.out", date(2026, 1, 2), 'got the date 2026-01-02. Write "2026-01-02".'),
    ("codec.up", 32, 'got 32. Write one of "fp32", "fp16"'),
    ("fleet.link", True, 'must be words with commas between, such as "a, b"; got true. Write one of '),
    ("local.lr", [0.1], "must be a number; got the list [0.1]. Its default is 0.05."),
    ("local.lr", {"base": 0.1}, "must be a number; got the table {base = 0.1}."),
    ("run.out", "caf\udce9", r'text that UTF-8 can write; got the text "caf\udce9".'),
]


def test_an_invalid_section_cannot_be_built_by_hand_either() -> None:
    with pytest.raises(ConfigError, match=r"run\.rounds"):
        RunConfig(rounds=0)
    with pytest.raises(ConfigError, match=r"fleet\.cameras"):
        dataclasses.replace(FleetConfig(), cameras=True)


FORWARD = {"strategy.name": "zeroth-order", "adapter.method": "norm-affine"}
DRAWN = {"strategy.name": "fedavg", "adapter.method": "mask", "codec.up": "bernoulli"}
MASK = {**DRAWN, "adapter.mask.train_first_conv": False, "adapter.mask.train_classifier": False}

CLUSTERED = {"strategy.name": "clustered"}
LEFT = {"adapter.lora-c.train_first_conv": False, "adapter.lora-c.train_classifier": False}

CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"fleet.per_round": 13}, "cannot draw more cameras"),
    ({"adapter.method": "full"}, 'trains every parameter.*strategy.name may be "fedavg" or'),
    ({"strategy.name": "fedavg"}, "the delta must be linear in it"),
    ({"adapter.method": "full", "strategy.name": "factor-fedavg"}, 'strategy.name may be "fedavg" or'),
    ({"adapter.method": "norm-affine", "strategy.name": "factor-fedavg"}, "factors A and B apart"),
    ({"adapter.method": "linear-probe", "strategy.name": "flora"}, 'strategy.name may be "merged" or "fedavg"'),
    ({"adapter.method": "conv-lora", "strategy.name": "rotating-basis"}, "draws and freezes"),
    ({"strategy.name": "zeroth-order"}, "linear in what is trained; LoraC's is not"),
    ({**FORWARD, "codec.up": "topk"}, "drive, topk and ternary are for many numbers"),
    ({**FORWARD, "codec.down": "drive"}, "drive, topk and ternary are for many numbers"),
    ({**FORWARD, "local.objective": "pseudo-label"}, "nothing in it may be held fixed"),
    ({**FORWARD, "adapter.method": "lora-xs", "adapter.layers": "auto"}, "as much whatever the layers"),
    ({**FORWARD, "strategy.zeroth-order.per_step": 17}, "came per_step = 17 of directions = 16"),
    ({**FORWARD, "codec.up": "int8", "codec.error_feedback": "true"}, "whose basis is drawn anew each round"),
    (DRAWN, "probabilities and nothing else; got codec.up"),
    ({**DRAWN, "adapter.method": "norm-affine"}, "Use mask without ends"),
    ({**MASK, "batch_norm.mode": "shared"}, "statistics that stay"),
    ({**MASK, "strategy.name": "zeroth-order"}, "probabilities and nothing else"),
    ({**MASK, "strategy.name": "merged", "codec.down": "bernoulli"}, "whose updates are none"),
    ({**MASK, "codec.down": "bernoulli", "strategy.server_optimizer": "momentum"}, "no change of a probability"),
    ({**MASK, "codec.down": "bernoulli", "strategy.sgd.lr": 2.0}, "sgd with lr = 1 at most"),
    ({**MASK, "codec.error_feedback": True}, "a draw leaves out nothing in the mean"),
    ({"strategy.name": "rotating-basis", "strategy.server_optimizer": "momentum"}, "optimizer has no meaning under"),
    ({"strategy.name": "rotating-basis", "strategy.server_optimizer": "adam"}, "a strategy that takes one"),
    ({"strategy.name": "rotating-basis", "strategy.aggregator": "median"}, "aggregator has no meaning under"),
    (
        {"adapter.method": "ffa-lora-c", "strategy.name": "fedavg", "strategy.server_optimizer": "yogi"},
        "Yogi acts on deltas",
    ),
    ({"adapter.method": "ffa-lora-c", "strategy.name": "fedavg", "strategy.aggregator": "krum"}, "Krum acts on deltas"),
    ({"adapter.lora-c.kernel_wise": True, "adapter.lora-c.rank_mode": "r*k"}, "rank is r itself"),
    ({"model.weights": "imagenet"}, "ImageNet weights exist for"),
    ({"strategy.name": "local-only", "strategy.aggregator": "krum"}, "aggregator has no meaning under"),
    ({"strategy.name": "flexlora", "strategy.sgd.lr": 0.5}, r"\[strategy.sgd\] is for a server_optimizer.*no meaning"),
    ({"strategy.name": "zero-byte", "batch_norm.mode": "frozen"}, "Without training"),
    ({"strategy.name": "zero-byte", "model.resnet8.norm": "group"}, "group norm has none"),
    ({"strategy.name": "local-only", "batch_norm.mode": "shared"}, "nothing is sent under local-only"),
    ({"batch_norm.mode": "shared", "model.resnet8.norm": "group"}, "Only batch norm"),
    ({"strategy.aggregator": "krum", "strategy.krum.malicious": 5}, "13 or more take part, set malicious = 4 or less"),
    ({"strategy.aggregator": "trimmed", "fleet.per_round": 9}, "0.1 of 9 cameras a round. Let 10 .* = 0.12 or more"),
    ({"strategy.merged.downlink": "stack", "strategy.merged.svd_rank": 2}, "svd_rank is of what svd sends"),
    ({**CLUSTERED, "strategy.clustered.downlink": "dense", "strategy.clustered.svd_rank": 2}, "of what svd sends"),
    ({**CLUSTERED, "strategy.clustered.clusters": 4}, 'looked for by similarity.*clusters = 4 and by = "weather"'),
    ({**LEFT, "adapter.lora-c.end_rank": 2}, "LoraC came with end_rank = 2, train_first_conv = false"),
    ({"data.name": "folder"}, "must be named"),
    ({"data.name": "cifar10c", "model.weights": "pretrain"}, "pretrained"),
]


def test_choices_that_contradict_one_another_are_refused_and_say_why() -> None:
    for flat, why in CONTRADICTIONS:
        with pytest.raises(ConfigError, match=why):
            Config.from_flat(flat)


def test_all_contradictions_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)draw more cameras.*FedAvg averages what cameras send"):
        Config.from_flat({"fleet.per_round": 13, "strategy.name": "fedavg"})


def test_full_fine_tuning_makes_sense() -> None:
    config = Config.from_flat({"adapter.method": "full", "strategy.name": "fedavg", "model.name": "resnet18"})
    assert config.adapter.settings("method") == {}


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    for key, near in (
        ("strategy.malicius", "strategy.krum.malicious"),
        ("run.round", "run.rounds"),
        ("rounds", "run.rounds"),
        ("fleet.camera", "fleet.cameras"),
        ("fleet.rank", "adapter.rank"),
        ("RUN.ROUNDS", "run.rounds"),
        ("model.Name", "model.name"),
        ("batchnorm.mode", "batch_norm.mode"),
    ):
        with pytest.raises(ConfigError, match=rf"Did you mean '{near}"):
            Config.from_flat({key: 1})


def test_an_unknown_key_without_a_similar_name_lists_all_sections() -> None:
    for key, told in (
        ("local.learning_rate", r"Those of \[local\] are objective, .*, lr, "),
        ("wandb.entity", r"The sections are run, .*fed-lorac config"),
        ("fleet", r"it is a section, .* below \[fleet\]"),
    ):
        with pytest.raises(ConfigError, match=rf"There is no setting '{key}'.*{told}") as error:
            Config.from_flat({key: 1})
        assert "Did you mean" not in str(error.value)


def test_a_whole_foreign_file_is_refused_in_a_few_lines() -> None:
    with pytest.raises(ConfigError, match="The same is true of 40 more keys") as error:
        Config.from_flat({f"tool.key{n}": n for n in range(50)})
    assert len(str(error.value).splitlines()) == 11


def test_an_unknown_choice_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'gausian_noise'.*Did you mean 'gaussian_noise'"):
        Config.from_flat({"fleet.corruptions": "fog, gausian_noise"})
    with pytest.raises(ConfigError, match=r"one of fp32, .*; got 'xyzzy'\. One of your own is named \"module:Name\""):
        Config.from_flat({"codec.up": "xyzzy"})


def test_a_quorum_is_the_share_of_the_drawn_rounded_up() -> None:
    for share, drawn, needed in ((0.5, 12, 6), (0.5, 5, 3), (0.0, 5, 1), (1.0, 7, 7), (0.1, 30, 3), (0.34, 3, 2)):
        flat = {"strategy.quorum": share, "fleet.per_round": drawn, "fleet.cameras": 30}
        assert Config.from_flat(flat).quorum_cameras == needed


def test_lists_are_parsed_to_tuples() -> None:
    fleet = FleetConfig(corruptions="fog,snow , fog,", severities="5, 1", link="lte-m, 4g")
    assert fleet.corruption_names == ("fog", "snow", "fog")
    assert fleet.severity_levels == (5, 1)
    assert fleet.link_names == ("lte-m", "4g")
