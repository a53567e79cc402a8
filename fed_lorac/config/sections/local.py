"""[local]: a camera's training in a round."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from fed_lorac import registry
from fed_lorac.config import names
from fed_lorac.config.section import Section, When
from fed_lorac.runtime.settings import setting
from fed_lorac.runtime.spelling import meant

__all__ = ["LocalConfig"]


LABEL_FREE = replace(
    registry.OBJECTIVES,
    built_in={name: at for name, at in registry.OBJECTIVES.built_in.items() if name not in ("labels", "mixed")},
)
"""The objectives that stand within "mixed"."""


@dataclass(frozen=True)
class LocalConfig(Section):
    """A camera's training in a round."""

    section: ClassVar[str] = "local"
    choices: ClassVar = {"objective": registry.OBJECTIVES, "unlabelled": LABEL_FREE}
    under: ClassVar = {
        "unlabelled": When("objective", lambda objective: objective == "mixed", '"mixed"'),
        "steps": When("epochs", lambda epochs: meant(int, epochs) == 0, "0"),
    }
    quiet: ClassVar = ("kept_mib",)
    objective: str = setting(
        "labels",
        "loss that a step lowers: cross-entropy with labels, or one that needs none",
        choices=registry.OBJECTIVES.names,
        outside=registry.OBJECTIVES.is_outside,
    )
    unlabelled: str = setting(
        "entropy",
        "loss that a step lowers on images without labels",
        choices=LABEL_FREE.names,
        outside=LABEL_FREE.is_outside,
    )
    epochs: int = setting(5, "passes over the camera's images in a round; 0: local.steps steps instead", least=0)
    steps: int = setting(20, "steps of the optimizer in a round", least=1)
    batch_size: int = setting(15, "images in a step", least=1)
    lr: float = setting(0.05, "learning rate of the first round", above=0)
    schedule: str = setting(
        "cosine", "learning rate over the rounds: it falls to zero, or stays", choices=names.SCHEDULES
    )
    momentum: float = setting(0.9, "momentum of SGD", least=0, below=1)
    weight_decay: float = setting(5e-4, "weight decay of weights; biases and batch norm have none", least=0)
    clip_norm: float = setting(5.0, "largest norm of a step's gradient; larger ones are clipped; 0: none is", least=0)
    prox_mu: float = setting(
        0.0, "FedProx's mu: how strongly training is pulled to where the round began; 0: not at all", least=0
    )
    augment: str = setting(
        "none", "training images at random: shifted, mirrored, partly covered", choices=names.AUGMENTS
    )
    kept_mib: int = setting(
        0,
        "MiB of memory to keep outputs of untrained layers in, for cameras that train side by side; 0: 256",
        least=0,
    )

    @property
    def guesses(self) -> bool:
        """Whether cameras learn from images that nobody labelled."""
        return self.objective != "labels"

    def built_objective(self) -> Any:
        """The objective with its settings, and within "mixed" the other one with its own."""
        within = {"rest": self.build("unlabelled")} if self.objective == "mixed" else {}
        return self.build("objective", **within)
