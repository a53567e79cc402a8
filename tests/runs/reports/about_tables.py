"""Reports about what is printed: whether it can be read, told apart, and compared."""

from pathlib import Path

from reported import SHORT, Case
from small_runs import tiny

from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

FULL = {"adapter__method": "full", "strategy__name": "fedavg", "local__lr": 0.02}
INT8 = {"codec__up": "int8", "codec__down": "int8"}

HALF_AWAY = ("-c", "fleet.devices=limited", "-c", "availability=0.5")


def runs_of(folder: Path, **settings: dict[str, object]) -> list[str]:
    """Finished runs by name, and the words that compare them."""
    for name, changes in settings.items():
        run(tiny(run__rounds=1, **changes), folder / name, Watch())
    return ["compare", *settings]


def two_codecs(folder: Path) -> list[str]:
    return runs_of(folder, exact={}, rounded=INT8, full=FULL)


def three_seeds(folder: Path) -> list[str]:
    return runs_of(folder, a={}, b={"run__seed": 1}, c={"run__seed": 2}, full=FULL)


def other_weather(folder: Path) -> list[str]:
    return runs_of(folder, a={}, b={"fleet__severities": "5"})


CASES = [
    Case(
        "filter-atoms under merged goes down dense",
        lambda folder: ["run", *SHORT, "-c", "adapter.method=filter-atoms"],
        exit_code=0,
        says=("Updates are far larger than filter-atoms needs", 'strategy.name = "fedavg" is exact too', "2.4%"),
    ),
    Case(
        "filter-atoms under plain",
        lambda folder: ["run", *SHORT, "-c", "adapter.method=filter-atoms", "-c", "strategy.name=fedavg"],
        exit_code=0,
        never=("Updates are far larger",),
    ),
    Case(
        "runs of two codecs beside one another",
        two_codecs,
        exit_code=0,
        says=(
            "merged svd; codec.down=fp32, codec.up=fp32 |",
            "merged svd; codec.down=int8, codec.up=int8 |",
            "| of full, fp32 | of full, same codec |",
            "over those of full fine-tuning, in fp32 and under the codec of the row",
        ),
    ),
    Case(
        "runs of three seeds",
        three_seeds,
        exit_code=0,
        says=(
            "| seeds |",
            "lora-c r=2 (auto), merged svd | 0, 1, 2 |",
            " ± ",
            "leaves out seeds 1, 2, which no run of full fine-tuning has",
            "not of the same seeds",
        ),
    ),
    Case(
        "runs in other weather beside one another",
        other_weather,
        exit_code=1,
        says=(
            "RunError: Runs can be compared if they share",
            "a and b differ in weather",
            "Run them again from one config.",
        ),
    ),
    Case(
        "a mean over fewer cameras than there are",
        lambda folder: ["run", *SHORT, *HALF_AWAY, "-c", "strategy.quorum=0", "-c", "run.seed=4"],
        exit_code=0,
        says=("(1 camera)", "is how many cameras that mean is over"),
    ),
    Case(
        "a run under a lossy codec",
        lambda folder: ["run", *SHORT, "-c", "codec.up=int8", "-c", "codec.down=int8"],
        exit_code=0,
        says=("full fine-tuning,", "share,", "same codec"),
    ),
    Case(
        "a run in a log",
        lambda folder: ["run", *SHORT],
        exit_code=0,
        says=("round 1/2: ", "round 2/2: ", "(2 cameras), 2 counted"),
        never=("cameras train", "━━━━━━━━━━━━━━━━ 2/2", "importing", "opening digits", "left"),
    ),
    Case(
        "sizes of a codec that does not exist",
        lambda folder: ["sizes", "--model", "resnet8", "--dtype", "int3"],
        exit_code=2,
        says=(
            "A codec must be one of fp32, fp16, bf16, int8, int4, int2, ternary, bernoulli, drive, topk",
            "got 'int3'. Did you mean 'int8'?",
        ),
    ),
    Case(
        "sizes of a method without a rank, of every network",
        lambda folder: ["sizes", "--method", "linear-probe"],
        exit_code=0,
        says=("resnet20, linear-probe, fp32", "resnet101, linear-probe, fp32"),
        never=("lora-c",),
    ),
]
