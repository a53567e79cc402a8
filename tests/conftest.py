"""What every test shares: where the real images are, a cache of its own, and no word to the outside."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A deadline would measure the machine. CI draws the same examples every time; at home each run draws fewer, new ones.
settings.register_profile("home", deadline=None, max_examples=40)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "home")
torch.set_num_threads(
    1
)  # networks here are so small that two threads take longer, and many times as long beside others


def pytest_report_header() -> str:
    """Say which tests will be skipped, before they are."""
    root = os.environ.get("FED_LORAC_DATA")
    return f"real images: {root}" if root else "real images: none (FED_LORAC_DATA is not set; see CONTRIBUTING.md)"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for folders of tests; none for files, which somebody waits for, or slow tests, which take times."""
    folders = all(Path(argument).is_dir() for argument in config.args)
    return min(2, os.cpu_count() or 1) if folders and config.option.markexpr == "not slow" else 0


LONGEST_FIRST = ("cluster", "reports", "runs", "laws", "unit")
"""Folders of tests: the short ones come last, so that both processes end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In the order of LONGEST_FIRST."""
    items.sort(key=lambda item: LONGEST_FIRST.index(item.path.parent.name))


class OneRayAtATime(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """A file's tests share what it makes, so they run in one process; those that start a Ray run one after another."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "cluster" if file.startswith("tests/cluster/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneRayAtATime:
    """Groups by mark (--dist loadgroup) are lost under pytest 9.2: pytest-xdist's issue 1386."""
    return OneRayAtATime(config, log)


@pytest.fixture(autouse=True)
def same_weights_in_every_run() -> None:
    """Layers that a test builds draw their weights from PyTorch's global generator: the same in any order of tests."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with `cifar10/` and `cifar10c-sample/`; tests that need it are skipped, visibly, without it."""
    root = os.environ.get("FED_LORAC_DATA")
    if not root:
        pytest.skip("FED_LORAC_DATA is not set: this test needs real images (see CONTRIBUTING.md)")
    return Path(root)


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The suite decodes into a cache of its own and leaves the user's alone."""
    os.environ["FED_LORAC_CACHE"] = str(tmp_path_factory.mktemp("cache"))
