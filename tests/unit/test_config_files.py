"""Laws of loading a config: names, files and overrides say the same thing, and what is broken is named."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fed_lorac.config import Config, load_config
from fed_lorac.errors import ConfigError, RunError

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = Config().to_flat()


def typed(flat: dict[str, Any]) -> dict[str, tuple[type, Any]]:
    return {key: (type(value), value) for key, value in flat.items()}


def test_a_config_written_to_a_file_loads_as_itself(tmp_path: Path) -> None:
    config = load_config("fog_snow_noise", ['run.out=a "b" \\ ü', "run.seed=7"])
    (tmp_path / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    assert load_config(tmp_path / "config.toml") == config


def test_an_override_is_read_as_its_key_wants_it() -> None:
    for override, key, value in (
        ("run.rounds=20", "run.rounds", 20),
        (" run.rounds = 20 ", "run.rounds", 20),
        ("local.lr=1e-2", "local.lr", 0.01),
        ("local.lr=1", "local.lr", 1.0),
        ("adapter.lora-c.kernel_wise=true", "adapter.lora-c.kernel_wise", True),
        ("model.name=resnet20", "model.name", "resnet20"),
        ('model.name="resnet20"', "model.name", "resnet20"),
        ("model.name='resnet20'", "model.name", "resnet20"),
        ("rank_mode=r*k", "adapter.lora-c.rank_mode", "r*k"),
        ("fleet.corruptions=fog, snow", "fleet.corruptions", "fog, snow"),
        ("fleet.severities=3", "fleet.severities", "3"),
        ("rank=1, 2", "adapter.rank", "1, 2"),
        ("rank=3", "adapter.rank", 3),
        ("run.out=2026", "run.out", "2026"),
        ("run.out=nan", "run.out", "nan"),
        ("run.out=a=b", "run.out", "a=b"),
        ("run.out=1\nx = 2", "run.out", "1\nx = 2"),
        ("run.out=/a#b", "run.out", "/a#b"),
        # What can only mean one thing:
        ("adapter.lora-c.kernel_wise=True", "adapter.lora-c.kernel_wise", True),
        ("train_classifier=FALSE", "adapter.lora-c.train_classifier", False),
        ("fleet.severities=[3,4]", "fleet.severities", "3, 4"),
        ('fleet.corruptions=["fog", "snow"]', "fleet.corruptions", "fog, snow"),
        ("fleet.corruptions=[fog,snow]", "fleet.corruptions", "fog, snow"),
        ("adapter.rank=[1, 2]", "adapter.rank", "1, 2"),
        ("run.rounds=1_000", "run.rounds", 1000),
        ("model.weights = 'a b.safetensors'", "model.weights", "a b.safetensors"),
        ('run.out=["a"]', "run.out", '["a"]'),
        ("run.out=it's", "run.out", "it's"),
    ):
        assert typed(load_config(overrides=[override]).changed()) == typed({key: value}), override
    assert load_config(overrides=["run.out="]) == Config()


def test_the_last_override_wins() -> None:
    assert load_config(None, ["run.rounds=2", "run.rounds=3"]).run.rounds == 3


def test_an_override_that_is_none_is_refused() -> None:
    for override in ("run.rounds", "=3", "", "run.rounds=", "run.rounds=3.0", "run.rounds=[3]", "x=1"):
        with pytest.raises(ConfigError):
            load_config(None, [override])


def test_broken_quotes_are_not_taken_for_a_part_of_the_text() -> None:
    with pytest.raises(ConfigError, match=r"Text in quotes must be valid TOML; got run\.out="):
        load_config(None, ['run.out="C:\\data"'])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_config_is_read_as_any_editor_saves_it(tmp_path: Path, encoding: str, newline: str) -> None:
    text = newline.join(["# für Kamera 3", "[run]", "rounds = 3", ""])
    (tmp_path / "saved.toml").write_bytes(text.encode(encoding))
    assert load_config(tmp_path / "saved.toml") == Config.from_flat({"run.rounds": 3})


def test_an_empty_config_is_the_quick_start(tmp_path: Path) -> None:
    for name, data in (("empty", b""), ("mark", b"\xef\xbb\xbf"), ("sections", b"[run]\n[fleet]\n")):
        (tmp_path / f"{name}.toml").write_bytes(data)
        assert load_config(tmp_path / f"{name}.toml") == Config()


def test_nested_and_dotted_keys_say_the_same(tmp_path: Path) -> None:
    texts = ["[run]\nrounds = 3\n", "run.rounds = 3\n", '"run.rounds" = 3\n', "run = {rounds = 3}\n"]
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        assert load_config(str(path)) == Config.from_flat({"run.rounds": 3})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[run]\nrounds = = 3\n", r"broken\.toml.*line 2"),
        (b"[run]\nout = '\xff'\n", r"broken\.toml.*UTF-8"),
        (b'"run.rounds" = 3\n[run]\nrounds = 4\n', "'run.rounds' comes nested and dotted"),
        (b"run.rounds = 3\nrun.rounds = 3\n", r"broken\.toml.*line 2"),
        (b"fleet = 3\n", "no setting 'fleet'"),
        (b"[strategy.krumm]\n", r"no table \[strategy\.krumm\]\. Did you mean 'krum'"),
        (b"fleet.severities = [[3], 4]\n", r"fleet\.severities must be words with commas.*the list \[\[3\], 4\]"),
        (b"run.out = 2026-01-01\n", r"run\.out must be text"),
        (b"[fleet.link]\nname = 'lte-m'\n", r"fleet\.link is a setting, not a table; .*Write fleet\.link = \"lte-m\""),
        (b"[fleet.link]\n", r"fleet\.link is a setting, not a table"),
        (b"[[fleet.link]]\nname = 'lte-m'\n", r"fleet\.link must be .*got the list \[\{name = \"lte-m\"\}\]"),
        (b"[[fleet]]\ncameras = 3\n", r"no setting 'fleet': it is a section, .* in single brackets"),
        (b"[lcoal]\n", r"no section \[lcoal\]\. Did you mean 'local'"),
        ("[run]\nrounds = 3\n".encode("utf-16"), r"broken\.toml is UTF-16, or no text at all. Save it as UTF-8"),
        (b"[run]\nrounds = 3\n\0", r"broken\.toml is UTF-16, or no text at all"),
        (b"run.rounds = " + b"9" * 5000, r"broken\.toml"),
        (b"run.rounds = " + b"[" * 5000, r"broken\.toml"),
        (b"run.rounds = 3\nlocal.lr = 0,5\n", r"broken\.toml.*line 2"),
    ],
)
def test_a_broken_file_is_refused_by_name_and_line(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=why):
        load_config(path)


def test_a_missing_or_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no config file"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="readable"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'quickstart'"):
        load_config("quikstart")
    with pytest.raises(ConfigError, match=r"Shipped are: .*quickstart, traffic_signs\.$"):
        load_config("nothing like it")
    with pytest.raises(RunError, match="no-such-user"):
        load_config("~no-such-user/a.toml")
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").touch()
    with pytest.raises(ConfigError, match=r"Did you mean 'mine\.toml'"):
        load_config("mine")


def test_a_name_is_found_from_any_folder_and_pytorch_is_not_waited_for_in_vain(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from fed_lorac.config import load_config\n"
        "from fed_lorac.errors import ConfigError\n"
        "try:\n"
        "    load_config('fog_snow_nose')\n"
        "except ConfigError as error:\n"
        "    assert 'Did you mean' in str(error)\n"
        "print('torch' in sys.modules, load_config('fog_snow_noise').data.name)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "cifar10"]


def test_fog_snow_noise_is_the_scenario_it_says() -> None:
    config = load_config("fog_snow_noise")
    assert (config.data.name, config.model.name, config.model.weights) == ("cifar10", "resnet20", "shipped")
    assert (config.fleet.cameras, config.fleet.images) == (12, 1600)
    assert config.fleet.severity_levels == (3, 4, 5)
    assert {"fog", "snow"} < set(config.fleet.corruption_names)


def test_a_key_without_its_section_is_taken_where_one_section_alone_has_it(tmp_path: Path) -> None:
    assert load_config(None, ["workers=2", "rank=4"]).run.workers == 2
    (tmp_path / "short.toml").write_text("workers = 3\n[adapter]\nrank = 4\n")
    config = load_config(tmp_path / "short.toml")
    assert (config.run.workers, config.adapter.rank) == (3, 4)
    (tmp_path / "twice.toml").write_text("workers = 3\n[run]\nworkers = 4\n")
    with pytest.raises(ConfigError, match="'workers' comes with its section too"):
        load_config(tmp_path / "twice.toml")
    with pytest.raises(ConfigError, match=r"model\.name, data\.name, strategy\.name"):
        load_config(None, ["name=full"])
    with pytest.raises(ConfigError, match="no setting 'worker'"):
        load_config(None, ["worker=2"])
