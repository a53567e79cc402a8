"""Normalisation: the mean and deviation that stored pixels are brought to. Knows numbers and words; not images or
networks.

A network is right only behind the normalisation that it was trained behind, so it belongs to a base's weights.
"""

import math
from dataclasses import dataclass

from fed_lorac.errors import ConfigError

__all__ = ["CIFAR10", "IMAGENET", "NORMALIZATIONS", "Normalization"]

RGB = tuple[float, float, float]

_FORM = (
    'text such as "0.485 0.456 0.406 / 0.229 0.224 0.225": mean / deviation of red, green and blue in units of 0..1, '
    "with / 255 at its end in units of 0..255"
)


@dataclass(frozen=True)
class Normalization:
    """Pixels x in 0..1 become (x - mean) / std, each channel its own; `text` and `parse` are inverses."""

    mean: RGB
    std: RGB

    def __post_init__(self) -> None:
        """ConfigError where a pixel would become nonsense, as numbers of 0..255 in units of 0..1 make of it."""
        if not (all(0 <= value <= 1 for value in self.mean) and all(0 < value <= 1 for value in self.std)):
            raise ConfigError(
                "A normalization's mean is in 0..1 and its deviation above 0, at most 1, in units of 0..1; got mean "
                f"{_spoken(self.mean)}, deviation {_spoken(self.std)}. Numbers for pixels of 0..255 end in / 255."
            )

    @staticmethod
    def parse(text: str) -> "Normalization":
        """A normalisation by name, or as `"r g b / r g b"` with or without `/ 255`; one number stands for all three."""
        if text in NORMALIZATIONS:
            return NORMALIZATIONS[text]
        parts = text.split("/")
        unit = 255.0 if len(parts) == 3 and parts[2].strip() == "255" else 1.0
        if len(parts) != (2 if unit == 1.0 else 3):
            raise ConfigError(_law(text))
        mean, std = (_rgb(part, unit, text) for part in parts[:2])
        return Normalization(mean, std)

    @property
    def text(self) -> str:
        """Its name, where it has one; else its numbers, each in full."""
        return next(
            (name for name, known in NORMALIZATIONS.items() if known == self),
            f"{_spoken(self.mean)} / {_spoken(self.std)}",
        )


def _rgb(part: str, unit: float, text: str) -> RGB:
    try:
        values = [float(word) / unit for word in part.split()]
    except ValueError:
        raise ConfigError(_law(text)) from None
    if len(values) == 1:
        values *= 3
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise ConfigError(_law(text))
    return values[0], values[1], values[2]


def _law(text: str) -> str:
    return f"A normalization is one of {', '.join(NORMALIZATIONS)}, or {_FORM}; got {text!r}."


def _spoken(values: RGB) -> str:
    return " ".join(map(repr, values))


# Channel means and deviations over the training images, in units of 0..1.
CIFAR10 = Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100 = Normalization((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

NORMALIZATIONS = {
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "imagenet": IMAGENET,
    "half": Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # to -1..1
    "unit": Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # to 0..1, as it is
}
