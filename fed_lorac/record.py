"""A run's directory: what a run leaves behind, whole at any moment. Knows files; not how they came about."""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import Tensor

from fed_lorac import __version__
from fed_lorac.checkpoint import Checkpoints
from fed_lorac.config import Config
from fed_lorac.errors import RunError
from fed_lorac.files import clear_litter, write_tensors, write_text
from fed_lorac.ledger import Ledger

__all__ = ["RunFolder", "versions"]

_PACKAGES = ("flwr", "ray", "torch", "torchvision", "numpy", "flwr-datasets", "safetensors")


def versions() -> dict[str, str]:
    """The versions that decide a run's numbers, Python and this package among them."""
    found = {"fed-lorac": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@dataclass
class RunFolder:
    """`config.toml`, `rounds.jsonl` and `cameras.jsonl` as the run goes; results at its end. Each appears whole."""

    path: Path
    ledger: Ledger = field(repr=False)
    checkpoints: Checkpoints = field(repr=False)

    @classmethod
    def create(cls, path: Path, config: Config) -> "RunFolder":
        """Make the folder; RunError where it already holds a run, so that none is overwritten."""
        rounds = path / "rounds.jsonl"
        if rounds.exists() and rounds.stat().st_size:  # one that failed before its first round may be tried again
            raise RunError(
                f"A run has a folder of its own; {path} already holds one. Choose another --out, or move it."
            )
        ledger = Ledger(path)
        write_text(path / "config.toml", config.to_toml())
        return cls(path, ledger, Checkpoints(path))

    @classmethod
    def reopen(cls, path: Path) -> "RunFolder":
        """The folder of a run that was killed or interrupted, to go on in."""
        clear_litter(path)
        return cls(path, Ledger(path), Checkpoints(path))

    def finish(
        self,
        summary: Mapping[str, Any],
        *,
        adapter: Mapping[str, Tensor],
        model: Mapping[str, Tensor],
        cameras: Mapping[str, Tensor],
        metadata: Mapping[str, str],
    ) -> None:
        """Write the results: tensors first, so that a summary never speaks of files that are not there."""
        write_tensors(self.path / "adapter.safetensors", adapter, metadata)
        write_tensors(self.path / "model.safetensors", model, metadata)
        write_tensors(self.path / "cameras.safetensors", cameras, metadata)
        write_text(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")
        self.ledger.close()
