"""Laws of somebody else's parts: named in a config they do all that built-in ones do, and what is wrong is said."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import called
from interrupted import Ended, check_equal
from own_parts import PARTS, SOURCE, asked_beside, register, settings_of_parts, write_package
from small_runs import ROOT, environment, rows, words
from small_studies import SETTINGS

import fed_lorac as fl
from fed_lorac.config import Config, load_config
from fed_lorac.data.corruptions import corrupt, corruption_fingerprint
from fed_lorac.errors import ConfigError, FactorError, FrameError, RunError
from fed_lorac.experiment import base_model
from fed_lorac.experiment.build import build_experiment
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run
from fed_lorac.wire.frame import by_name, decode, encode, inspect


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A package that lies in a folder of its own, as in a user's project."""
    folder = tmp_path_factory.mktemp("project")
    write_package(folder, "their_parts")
    sys.path.append(str(folder))
    return "their_parts"


@pytest.fixture(scope="module")
def done(package: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of nothing but its parts."""
    out = tmp_path_factory.mktemp("own") / "run"
    run(load_config(None, settings_of_parts(package)), out, Watch())
    return out


def broken(name: str, folder: Path, body: str) -> str:
    """A module of one's own that is not right, beside the others."""
    (folder / f"{name}.py").write_text(body, encoding="utf-8")
    sys.path.append(str(folder))
    return f"{name}:Mine"


def test_a_run_of_nothing_but_parts_of_ones_own_counts_and_bills(done: Path, package: str) -> None:
    found = rows(done / "rounds.jsonl")
    assert [row["cameras_counted"] for row in found] == [3, 3]
    assert found[-1]["uplink_payload_bytes"] == 3 * (4 + 2 * (162 + 6 + 18))  # a step a frame, two bytes a value
    assert json.loads((done / "summary.json").read_text())["data"] == f"{package}.parts:stripes"
    weathers = {row["corruption"] for row in rows(done / "cameras.jsonl")}
    assert weathers == {"fog", f"{package}.parts:drizzle"}


def test_it_goes_on_after_an_interrupt_to_the_same_end(done: Path, package: str, tmp_path: Path) -> None:
    config = load_config(None, settings_of_parts(package))
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", Ended(1))
    run(config, tmp_path / "cut", Watch(), resume=True)
    check_equal(done, tmp_path / "cut")


def test_its_config_crosses_toml_and_flowers_scalars(package: str) -> None:
    config = load_config(None, settings_of_parts(package))
    flat = config.to_flat()
    assert flat["model.options"] == "channels = 6" and flat["fleet.options"] == "share = 0.02"
    assert Config.from_flat(flat) == config
    assert all(isinstance(value, bool | int | float | str) for value in flat.values())
    with pytest.raises(ConfigError, match=r"model\.options\.channels must be a whole number"):
        load_config(config, {"model.options.channels": "many"})
    with pytest.raises(ConfigError, match=r"no setting 'data\.options\.cuont'\. Did you mean 'data\.options\.count'"):
        load_config(config, {"data.options.cuont": 3})


def test_its_network_and_its_sizes_are_had_like_ours(
    done: Path, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.safetensors"
    assert called(monkeypatch, "export", str(done), "--format", "safetensors", "--out", str(file)) == 0
    with pytest.raises(fl.DataError, match=rf"'{package}\.parts:net', which is imported.*trust=True"):
        fl.load_network(file)  # a file does not say what is imported
    network = fl.load_network(file, trust=True)
    assert network.network[0].out_channels == 6  # type: ignore[union-attr, index]
    assert fl.load_run(done).model(camera=1)(np.zeros((2, 16, 16, 3), np.uint8)).shape == (2, 3)
    parts = {flag: f"{package}.parts:{name}" for flag, name in (("model", "net"), ("method", "Gains"))}
    capsys.readouterr()
    words = [word for flag, name in parts.items() for word in (f"--{flag}", name)]
    assert called(monkeypatch, "sizes", *words, "--dtype", f"{package}.parts:tenths", "--json") == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["method"] == parts["method"] and 0 < row["frame_bytes"] < row["full_frame_bytes"]


CHANGED = SOURCE.replace("* severity", "* severity + 0.001")


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_code(tmp_path: Path) -> None:
    write_package(tmp_path, "edited_parts")
    script = "import sys; from fed_lorac.cli import main; sys.argv[1:] = sys.argv[1:]; main()"
    words = [word for key, value in settings_of_parts("edited_parts").items() for word in ("-c", f"{key}={value}")]
    out = str(tmp_path / "run")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-P", "-c", script, *arguments]  # -P: as an installed command, without the folder
        return subprocess.run(line, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)

    begun = command("run", "--out", out, *words)
    assert begun.returncode == 0, begun.stderr
    assert command("run", "--resume", out, "-c", "run.rounds=3").returncode == 0
    write_package(tmp_path, "edited_parts", CHANGED)
    went_on = command("run", "--resume", out, "-c", "run.rounds=4")
    assert went_on.returncode != 0
    said = " ".join(went_on.stderr.split())
    assert "its code of packages whose parts it names was edited_parts" in said and "Put that code back" in said


@pytest.mark.slow
def test_code_is_identified_by_the_modules_that_it_imports_too(tmp_path: Path) -> None:
    script = (
        "from fed_lorac.registry import CORRUPTIONS; from fed_lorac.data.corruptions import corruption_fingerprint;"
        "print(CORRUPTIONS.package('wet:rain'), corruption_fingerprint('wet:rain'))"
    )
    (tmp_path / "wet.py").write_text("import drops\ndef rain(images, severity, rng): return drops.on(images)\n")

    def told(beside: str) -> str:
        (tmp_path / "drops.py").write_text(beside, encoding="utf-8")
        line = [sys.executable, "-c", script]
        done = subprocess.run(line, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
        return done.stdout

    first = told("import numpy\ndef on(images): return images\n")
    assert "numpy" in first and told("import numpy\ndef on(images): return 255 - images\n") != first
    assert told("import numpy\ndef on(images): return images\n") == first
    (tmp_path / "old.py").write_text("print 'of an older Python'\n", encoding="utf-8")
    assert told("import numpy\ndef on(images): return images\n") == first


def test_weather_of_ones_own_is_kept_by_its_source_and_settings(package: str) -> None:
    name = f"{package}.parts:drizzle"
    made_by = corruption_fingerprint(name, {"share": 0.1})
    assert made_by is not None and package in made_by and "numpy" in made_by
    assert made_by != corruption_fingerprint(name, {"share": 0.2})
    images = np.zeros((3, 16, 16, 3), np.uint8)
    wet = corrupt(images, name, 5, np.random.default_rng(0), share=0.1)
    assert not images.any() and 0.3 < (wet == 255).mean() < 0.7


def test_a_frame_of_ones_own_codec_is_read_by_whoever_knows_its_code(package: str) -> None:
    import torch

    state = {"x": torch.tensor([0.12, -0.58])}
    frame = encode(state, dtype=f"{package}.parts:tenths", base="b")
    assert inspect(frame).dtype == "tenths"
    torch.testing.assert_close(decode(frame, base="b")["x"], torch.tensor([0.1, -0.6]))
    script = f"from fed_lorac.wire.frame import decode; decode(bytes.fromhex({frame.hex()!r}), base='b')"
    told = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=False
    )
    assert "this frame says 200. It is a codec of somebody's own: give this end its package" in told.stderr
    with pytest.raises(FrameError, match=r'your own as "module:Name"'):
        by_name("tenth")


def test_two_codecs_of_one_code_are_not_both_in_a_run(package: str, tmp_path: Path) -> None:
    body = f"import dataclasses\nfrom {package}.parts import TENTHS\nMine = dataclasses.replace(TENTHS, name='other')"
    names = {"codec.up": f"{package}.parts:tenths", "codec.down": broken("another_codec", tmp_path, body)}
    with pytest.raises(ConfigError, match=r"names its codec by its code; .*which both have 200"):
        load_config(None, names)


def test_a_link_of_ones_own_has_its_rates(package: str) -> None:
    mine = f"{package}.parts:PIGEON"
    assert load_config(None, {"fleet.link": mine}).fleet.links()[mine].uplink_kbit_s == 0.01


TINY = {"model.weights": "none", "run.rounds": 1, "fleet.cameras": 2, "fleet.per_round": 2, "fleet.images": 20}

BROKEN: dict[str, tuple[str, str, str]] = {
    "no adapter": ("adapter.method", "class Mine: pass", r"An adapter of your own is a class that extends"),
    "abstract": (
        "adapter.method",
        "from fed_lorac.adapters.adapter import Adapter\nclass Mine(Adapter): pass",
        r"cannot be built with .*abstract",
    ),
    "no strategy": ("strategy.name", "def Mine(): pass", r"A strategy of your own is a class that extends"),
    "no function": ("model.name", "Mine = 3", r"model of your own is called as \(num_classes, \*\*settings\)"),
    "raises": ("data.name", "raise RuntimeError('no such luck')", r"RuntimeError: no such luck.*Check the spelling"),
    "no codec": ("codec.up", "def Mine(): return 3", r"codec of your own is a .*Codec.* it gives int"),
    "a taken code": (
        "codec.up",
        "import dataclasses\nfrom fed_lorac.wire.codecs.codecs import FP32\nMine = dataclasses.replace(FP32, name='m')",
        r"a code from 128 to 255; got 'm' with code 1",
    ),
    "no link": ("fleet.link", "Mine = 'fast'", r"link of your own is a .*Link"),
    "images that shrink": (
        "fleet.corruptions",
        "def Mine(images, severity, rng): return images[:, ::2]",
        r"corruption of your own is called as .*of uint8 \(.*\) it makes uint8",
    ),
    "a failing one": ("fleet.corruptions", "def Mine(images, severity, rng): return 1 // 0", r"ZeroDivisionError"),
    "logits of others": (
        "model.name",
        "from torch import nn\n"
        "def Mine(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes + 1))",
        r"give \(2, 11\), and \(2, 10\) are due",
    ),
    "weights that the first images draw": (
        "model.name",
        "from torch import nn\ndef Mine(num_classes): return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))",
        r"1\.weight has no size and no value before the first images",
    ),
    "no images": ("data.name", "def Mine(root, image_size): return 3", r"data set of your own .* it gives int"),
    "images of another size": (
        "data.name",
        "import numpy as np\nfrom fed_lorac.data.dataset import Images\n"
        "def Mine(root, image_size): return Images(np.zeros((9, 8, 8, 3), np.uint8), np.zeros(9, int), ('a',))",
        r"images must be uint8 \(N, 32, 32, 3\)",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_part_that_breaks_its_contract_is_named_with_the_contract(what: str, tmp_path: Path) -> None:
    key, body, told = BROKEN[what]
    name = broken(f"broken_{what.replace(' ', '_')}", tmp_path, body)
    with pytest.raises(ConfigError, match=told) as found:
        run(load_config(None, {**TINY, key: name}), tmp_path / "run", Watch())
    assert name in str(found.value) or "'m'" in str(found.value)


MISSHAPEN = """
from fed_lorac.adapters.conv_adapter import AdaptedConv2d, Branch, ConvAdapter

class Rows(AdaptedConv2d):
    def delta(self, own):
        return own["gain"]

class Mine(ConvAdapter):
    layer = Rows
    linear = True

    def branch(self, name, conv, generator):
        return Branch({"gain": conv.weight.new_zeros(conv.out_channels, 1, 1, 1)})
"""


def test_a_delta_that_does_not_fit_its_weight_is_refused_with_both_shapes(tmp_path: Path) -> None:
    name = broken("misshapen", tmp_path, MISSHAPEN)
    said = r"weight, \(16, 16, 3, 3\); misshapen\.Rows\.delta gives \(16, 1, 1, 1\)"
    with pytest.raises(FactorError, match=said):
        run(load_config(None, {**TINY, "adapter.method": name, "strategy.name": "fedavg"}), tmp_path / "run", Watch())


FAILING_CODEC = """
from fed_lorac.wire.codecs.codecs import Codec

def Mine():
    def pack(values, slot, rng):
        raise ValueError("no luck")

    return Codec("m", 201, "nobody", False, 1.0, lambda slot: slot.count, pack, lambda data, slot: data)
"""


def test_a_traceback_out_of_a_part_of_ones_own_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING_CODEC, encoding="utf-8")
    settings = {**TINY, "codec.up": "failing:Mine", "adapter.method": "norm-affine", "strategy.name": "fedavg"}
    asked = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    command = [sys.executable, "-m", "fed_lorac", "run", *asked, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ValueError: no luck" in done.stderr
    assert "The error arose in failing, which is not part of fed-lorac" in " ".join(done.stderr.split())
    assert "report it" not in done.stderr


@pytest.mark.parametrize("key", PARTS)
def test_an_unknown_name_is_refused_with_how_to_name_ones_own_part(key: str) -> None:
    with pytest.raises(ConfigError, match=r"\"module:Name\".* entry point|entry point.* \"module:Name\""):
        load_config(None, {key: "nonesuch"})


def test_an_installed_package_gives_its_parts_short_names(tmp_path: Path) -> None:
    write_package(tmp_path, "their_parts")
    register(tmp_path, "fed_lorac.adapters", "gains = their_parts.parts:Gains")
    register(tmp_path, "fed_lorac.links", "pigeon = their_parts.parts:PIGEON")
    script = (
        "import fed_lorac as fl; c = fl.load_config(None, {'adapter.method': 'gains', 'strength': 0.7, "
        "'strategy.name': 'fedavg', 'fleet.link': 'pigeon, lte-m'}); print(c.adapter.build('method').strength, "
        "c.outside(), fl.methods()['adapters'][-1], fl.methods()['links'][-1])"
    )
    said = asked_beside(tmp_path, script)
    assert said.startswith("0.7 {'their_parts': '1.0 ") and "arXiv 2701.00001" in said and "RFC 1149" in said, said


def test_a_name_that_is_taken_is_refused_by_name(tmp_path: Path) -> None:
    write_package(tmp_path, "their_parts")
    register(tmp_path, "fed_lorac.adapters", "lora-c = their_parts.parts:Gains", "x = their_parts.parts:Gains")
    said = asked_beside(tmp_path, "import fed_lorac as fl; fl.load_config(None, {'adapter.method': 'x'})")
    assert "their-parts registers 'lora-c' in fed_lorac.adapters, which is built in. Rename or uninstall it." in said


def test_what_the_page_shows_runs(tmp_path: Path) -> None:
    """All of docs/extending.md's examples together are one package, and a config of nothing else."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    shown = "\n".join(
        block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "my_package" not in block
    )
    (tmp_path / "shown_parts.py").write_text(shown, encoding="utf-8")
    sys.path.append(str(tmp_path))
    names = {"adapter.method": "Gains", "strategy.name": "PlainMean", "codec.up": "steps", "codec.down": "steps"}
    names |= {"model.name": "tiny_net", "data.name": "stripes", "fleet.link": "PIGEON", "fleet.corruptions": "drizzle"}
    settings = {key: f"shown_parts:{name}" for key, name in names.items()}
    small = {"model.weights": "none", "run.rounds": 1, "local.epochs": 1, "fleet.cameras": 3, "fleet.per_round": 3}
    options = {"adapter.options.strength": 0.3, "fleet.options.share": 0.02, "model.options.channels": 4}
    run(load_config(None, {**settings, **small, **options}), tmp_path / "run", Watch())
    assert [row["cameras_counted"] for row in rows(tmp_path / "run" / "rounds.jsonl")] == [3]


@pytest.mark.slow
def test_a_study_runs_again_what_ran_with_other_code_of_ones_own(tmp_path: Path) -> None:
    body = (ROOT / "tests" / "helpers" / "faulty_strategies.py").read_text()
    study = tmp_path / "s.toml"
    study.write_text(
        "seeds = [0]\n[settings]\n"
        + "".join(f"{key} = {json.dumps(its)}\n" for key, its in SETTINGS.items())
        + '[arms.mine]\nstrategy.name = "edited_part:FirstTwo"\n'
    )
    said, adapters = [], []
    for code in (body, body.replace("total.dense()", "0.5 * total.dense()"), body):
        (tmp_path / "edited_part.py").write_text(code)
        done = subprocess.run(
            [sys.executable, "-m", "fed_lorac", "study", str(study), "--out", "st"],
            cwd=tmp_path,
            env=environment(PYTHONPATH=f"{ROOT}:{tmp_path}"),
            capture_output=True,
            text=True,
            check=True,
        )
        said.append(re.search(r"\d+ of them finished before", done.stdout + done.stderr)[0])  # type: ignore[index]
        adapters.append({path.read_bytes() for path in tmp_path.glob("st/runs/*/adapter.safetensors")})
    assert said == ["0 of them finished before", "0 of them finished before", "1 of them finished before"]
    assert [len(one) for one in adapters] == [1, 2, 2]


def test_a_base_is_pretrained_anew_for_other_code_of_ones_own_network(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(None, settings_of_parts(package))
    data = build_experiment(config).data
    before = base_model._base_key(config, data)
    monkeypatch.setattr("fed_lorac.runtime.kind.package_identity", lambda module: "other code")
    assert base_model._base_key(config, data) != before


def test_options_of_another_part_of_ones_own_go_with_it() -> None:
    first = load_config(None, {"strategy.name": "optional_parts:Slow", "strategy.options.step": 0.25})
    assert load_config(first, {"strategy.name": "optional_parts:Fast"}).to_flat()["strategy.options"] == "step = 2.0"
    assert load_config(first, {"strategy.name": "optional_parts:Other"}).to_flat()["strategy.options"] == "other = 1.0"
    assert load_config(first, {"run.rounds": 3}).to_flat()["strategy.options"] == "step = 0.25"


def test_a_codec_that_does_not_bring_zeros_back_is_an_error_before_anything_is_trained(tmp_path: Path) -> None:
    config = load_config(None, words(codec__up="optional_parts:codec"))
    with pytest.raises(ConfigError, match=r"'torn' is not: .*cannot unpack 'bias': ZeroDivisionError"):
        run(config, tmp_path / "run", Watch())
    assert not (tmp_path / "run" / "rounds.jsonl").exists()


def test_an_objective_that_breaks_its_contract_ends_the_run_in_its_first_round(tmp_path: Path) -> None:
    config = load_config(None, words(run__rounds=4, local__objective="optional_parts:OneNumber"))
    with pytest.raises(RunError, match=r"in 1 rounds none did.*\(3 of 3\): .*: use \.mean\(0\)\. Fix it: see docs"):
        run(config, tmp_path / "run", Watch())
    assert len(rows(tmp_path / "run" / "rounds.jsonl")) == 1
