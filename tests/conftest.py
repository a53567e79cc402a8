"""What every test shares: where the real images are, and a cache of its own."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with `cifar10-jpeg/` and `cifar10c-sample/`; tests that need it are skipped, visibly, without it."""
    root = os.environ.get("FED_LORAC_DATA")
    if not root:
        pytest.skip("FED_LORAC_DATA is not set: this test needs real images (see CONTRIBUTING.md)")
    return Path(root)


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The suite decodes into a cache of its own and leaves the user's alone."""
    os.environ["FED_LORAC_CACHE"] = str(tmp_path_factory.mktemp("cache"))
