"""Who gets which image, by rank within its class. Knows labels and shares; not images, files or cameras."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from fed_lorac.errors import ConfigError

__all__ = ["check_shares", "split_by_rank"]


def check_shares(shares: Sequence[float]) -> None:
    """Raise `ConfigError` unless the shares are 0 or more each and 1 together."""
    if any(not 0 <= share <= 1 for share in shares) or abs(math.fsum(shares) - 1) > 1e-9:
        raise ConfigError(
            f"The shares of a split must lie between 0 and 1 and sum to 1; got {tuple(shares)}. "
            "Raise or lower one of them."
        )


def split_by_rank(labels: Int64[np.ndarray, " n"], shares: Sequence[float]) -> list[Int64[np.ndarray, " part"]]:
    """Cut every class, in the data set's own order, into consecutive parts of these shares.

    Of a class with n images the parts end at `round(n * cumulative share)`, so no image is lost or given twice and
    each part is within one image of its share. Nothing is drawn: the split is the same on every machine, and the same
    for two copies of a data set that hold the classes in different places but each class in the same order.

    Args:
        labels: one class number an image.
        shares: one share a part, summing to 1.

    Returns:
        One ascending array of indices a part.

    Raises:
        ConfigError: shares that are negative or do not sum to 1.
    """
    check_shares(shares)
    ends = [math.fsum(shares[: part + 1]) for part in range(len(shares) - 1)]
    parts: list[list[Int64[np.ndarray, " m"]]] = [[] for _ in shares]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        cuts = [round(end * len(members)) for end in ends]
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part or [np.empty(0, np.int64)])).astype(np.int64) for part in parts]
