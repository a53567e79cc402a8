"""[local]: a camera's training in a round. Knows keys and ranges; not tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fed_lorac import registry
from fed_lorac.config import names
from fed_lorac.config.section import Section
from fed_lorac.runtime.settings import Rule, setting

__all__ = ["LocalConfig"]


@dataclass(frozen=True)
class LocalConfig(Section):
    """A camera's training in a round."""

    section: ClassVar[str] = "local"
    choices: ClassVar = {"objective": registry.OBJECTIVES, "unlabelled": registry.OBJECTIVES}
    objective: str = setting(
        "labels",
        "what a step lowers: cross-entropy with labels, or what needs none",
        choices=registry.OBJECTIVES.names,
        outside=registry.OBJECTIVES.is_outside,
    )
    unlabelled: str = setting(
        "entropy",
        'what a step lowers on images without labels, under objective = "mixed"',
        choices=("entropy", "entropy-filtered", "pseudo-label", "consistency"),
        outside=registry.OBJECTIVES.is_outside,
    )
    epochs: int = setting(5, "passes over the camera's images in a round", least=1)
    steps: int = setting(0, "optimizer steps in a round; 0: by epochs", least=0)
    batch_size: int = setting(15, "images in a step", least=1)
    lr: float = setting(0.05, "learning rate of the first round", above=0)
    momentum: float = setting(0.9, "momentum of SGD", least=0, below=1)
    weight_decay: float = setting(5e-4, "weight decay of matrices; vectors have none", least=0)
    clip_norm: float = setting(5.0, "largest norm of a gradient; 0: no clipping", least=0)
    prox_mu: float = setting(0.0, "FedProx's mu: pull towards the start of the round; 0: none", least=0)
    schedule: str = setting("cosine", "learning rate over the rounds", choices=names.SCHEDULES)
    augment: str = setting("none", "random crops and mirror images", choices=names.AUGMENTS)

    @property
    def guesses(self) -> bool:
        """Whether cameras learn from images that nobody labelled."""
        return self.objective != "labels"

    @classmethod
    def tables_of(cls, chosen: Mapping[str, object]) -> dict[str, dict[str, Rule]]:
        """As every section's; the table of `unlabelled` under "mixed" alone."""
        return super().tables_of(chosen if chosen.get("objective") == "mixed" else {**chosen, "unlabelled": "labels"})

    def built_objective(self) -> Any:
        """The objective with its settings, and within "mixed" the other one with its own."""
        within = {"rest": self.build("unlabelled")} if self.objective == "mixed" else {}
        return self.build("objective", **within)
