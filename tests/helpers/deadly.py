"""A model that takes its process with it, as an out-of-memory kill does."""

import os
import signal

from torch import nn

__all__ = ["Dies"]


def Dies(num_classes: int) -> nn.Module:  # noqa: N802  (a model is called like a class)
    """Never returns."""
    os.kill(os.getpid(), signal.SIGKILL)
    return nn.Identity()
