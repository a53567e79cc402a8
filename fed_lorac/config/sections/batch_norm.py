"""[batch_norm]: what becomes of batch norm's statistics."""

from dataclasses import dataclass
from typing import ClassVar

from fed_lorac.config import names
from fed_lorac.config.section import Section
from fed_lorac.registry import Kind
from fed_lorac.runtime.settings import setting

__all__ = ["BatchNormConfig", "LocalStatistics"]


@dataclass(frozen=True)
class LocalStatistics:
    """[batch_norm.local]: each camera has statistics of its own."""

    training_statistics: str = setting(
        "batch",
        "statistics while training: of each batch, or fixed from a few images before it begins",
        choices=names.TRAINING_STATISTICS,
    )
    window: int = setting(0, "newest images of a camera that its statistics are taken from; 0: all", least=0)


@dataclass(frozen=True)
class BatchNormConfig(Section):
    """What becomes of batch-norm statistics."""

    section: ClassVar[str] = "batch_norm"
    choices: ClassVar = {"mode": Kind({"local": LocalStatistics})}
    mode: str = setting(
        "local",
        "batch norm's statistics: the camera's own, the base's for ever, or sent and averaged",
        choices=names.BATCH_NORMS,
    )
