"""How far a mean over a sample of cameras and images may be from the mean over all. Knows accuracies; not runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

__all__ = ["Sample"]


@dataclass(frozen=True)
class Sample:
    """What a fleet was measured on: of how many cameras some were drawn, and of each drawn one, how many of its
    evaluation images of how many: camera -> (drawn, of)."""

    cameras: int
    images: Mapping[int, tuple[int, int]]

    def standard_error(self, accuracies: Mapping[int, float]) -> float | None:
        """The standard error of the mean of these cameras' accuracies, 0 to 1, as an estimate of the fleet's; None
        where it cannot be told: of no camera, of one of several, or of one image of several.

        Sampling in two stages, both without replacement: with n cameras of N, accuracies p, and m images of M of each,
        (1 - n/N) s^2 / n + (n/N) / n^2 * sum of (1 - m/M) p (1 - p) / (m - 1), where s^2 is the variance of p between
        cameras. What is random is the draw alone, not the training.

        Source: Cochran 1977, "Sampling Techniques", 3rd edition, chapter 10
        """
        count, share = len(accuracies), len(accuracies) / self.cameras
        if not count or (count == 1 and share < 1):
            return None
        within = 0.0
        for camera, accuracy in accuracies.items():
            drawn, of = self.images[camera]
            if drawn < of:
                if drawn == 1:
                    return None
                within += (1 - drawn / of) * accuracy * (1 - accuracy) / (drawn - 1)
        between = 0.0
        if share < 1:
            mean = fmean(accuracies.values())
            between = math.fsum((accuracy - mean) ** 2 for accuracy in accuracies.values()) / (count - 1)
        return math.sqrt((1 - share) * between / count + share * within / count**2)
