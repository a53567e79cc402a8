"""Whether two arms differ over one fleet: the difference camera by camera. Knows accuracies by fleet and camera; not
runs or tables.

Cameras have the same images and weather under both arms, so what is tested are differences of one camera's accuracies.
One camera's differences over seeds are not independent (it has one weather), so they are averaged first: a camera
counts once. If neither arm were better, each camera's mean difference would be as likely its negative; the test is that
of Fisher (The Design of Experiments, 1935, section 21), which assumes nothing of how differences are distributed.

It asks of these trained models whether cameras are better off. All of a seed's cameras share one model, so how much
another training would change is not in it: that is in the interval over seeds.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from fed_lorac.reporting.intervals import interval_95
from fed_lorac.seeds import stream

__all__ = ["Difference", "Scores", "difference", "holm", "sign_flip_p"]

Scores = Mapping[Hashable, Mapping[int, float]]
"""A fleet, of one seed -> camera -> accuracy."""

_EXACT = 16  # cameras up to which all 2**n signs are tried
_DRAWS = 1 << 16  # random signs beyond
_AT_ONCE = 1 << 24  # signs in memory


@dataclass(frozen=True)
class Difference:
    """By how much one arm is better than another over the fleets that both have.

    `mean`: of the seeds' mean differences; `half_95`: half its 95 % interval over seeds, nan of one seed; `p`:
    two-sided, over cameras.
    """

    mean: float
    half_95: float
    p: float
    seeds: int
    cameras: int


def difference(ours: Scores, theirs: Scores) -> Difference | None:
    """Ours less theirs; None where no camera was measured under both over one fleet."""
    by_seed = [
        {camera: ours[fleet][camera] - theirs[fleet][camera] for camera in ours[fleet] if camera in theirs[fleet]}
        for fleet in ours
        if fleet in theirs
    ]
    means = [fmean(found.values()) for found in by_seed if found]
    if not means:
        return None
    cameras = sorted(set().union(*by_seed))
    by_camera = [fmean(found[camera] for found in by_seed if camera in found) for camera in cameras]
    return Difference(fmean(means), interval_95(means), sign_flip_p(by_camera), len(means), len(cameras))


def sign_flip_p(values: Sequence[float]) -> float:
    """How often a mean would be as far from 0 if each value's sign were drawn: exact up to 16 values, beyond that from
    65,536 draws, the observed signs being one more."""
    found = np.asarray(values, dtype=np.float64)
    rounding = 1e-12 * math.fsum(map(abs, values))  # equal sums are equal, however they are rounded, near zero too
    observed = abs(math.fsum(values)) - rounding
    if len(found) <= _EXACT:
        signs = 1 - 2 * (np.arange(1 << len(found))[:, None] >> np.arange(len(found)) & 1)
        return float(np.mean(np.abs(signs @ found) >= observed))
    rng, rows, reached = stream(0, "sign flips", len(found)), max(1, _AT_ONCE // len(found)), 1
    for begin in range(0, _DRAWS, rows):
        signs = 1 - 2 * rng.integers(0, 2, (min(rows, _DRAWS - begin), len(found)), dtype=np.int8)
        reached += int(np.count_nonzero(np.abs(signs @ found) >= observed))
    return reached / (_DRAWS + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values of several comparisons, so that the chance that any of them is wrongly below a level is at most that
    level (Holm 1979, Scandinavian Journal of Statistics 6, 65-70)."""
    found, least = list(ps), 0.0
    for rank, place in enumerate(sorted(range(len(found)), key=found.__getitem__)):
        least = max(least, min(1.0, (len(ps) - rank) * ps[place]))
        found[place] = least
    return found
