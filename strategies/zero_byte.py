"""No training, a baseline: each camera re-estimates its batch-norm statistics (Schneider et al. 2020, arXiv
2006.16971). Any method that sends a byte is to be held against it."""

from dataclasses import dataclass

from fed_lorac.server.traits import SilentStrategy

__all__ = ["ZeroByte"]


@dataclass(frozen=True)
class ZeroByte(SilentStrategy):
    """No camera trains: each measures its weather's batch-norm statistics, no more."""

    source = "batch-norm adaptation, arXiv 2006.16971"
    trains = False
