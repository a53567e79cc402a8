"""Which cameras are alike, by what their updates do to the network. Knows changes as sums; not cameras or frames.

Two updates are as alike as the cosine of the angle between them is high (clustered federated learning, Sattler et al.
2020, arXiv 1910.01991), taken after the mean of all has been subtracted: what all weathers ask for is no difference.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import scipy
import torch
from numpy.typing import NDArray

from fed_lorac.aggregation.delta_sum import DeltaSum, Sums

__all__ = ["clusters", "cosines", "gram", "nearest"]

Square = NDArray[np.float64]  # n x n
_NOTHING = 1e-12  # of the largest squared norm: what is left where updates are equal


def gram(changes: Sequence[Sums]) -> Square:
    """<delta_i, delta_j> over all tensors together; factors are never multiplied out: <B_i A_i, B_j A_j> is the sum of
    (B_i' B_j) * (A_i A_j')."""
    total = np.zeros((len(changes), len(changes)))
    for name in sorted({name for change in changes for name in change}):
        total += _gram_of_one([change[name].factors() for change in changes], [change[name] for change in changes])
    return total


def _gram_of_one(pairs: Sequence[tuple[torch.Tensor, torch.Tensor] | None], sums: Sequence[DeltaSum]) -> Square:
    stacked = [pair for pair in pairs if pair is not None]
    if len(stacked) < len(pairs):
        rows = torch.stack([total.dense64().flatten() for total in sums])
        return np.asarray((rows @ rows.T).numpy(), dtype=np.float64)
    A, B = torch.cat([A for A, _ in stacked]).double(), torch.cat([B for _, B in stacked], dim=1).double()
    each: Square = ((B.T @ B) * (A @ A.T)).numpy()
    starts = np.cumsum([0, *(A.shape[0] for A, _ in stacked[:-1])])
    by_row: NDArray[np.float64] = np.add.reduceat(each, starts, axis=0)
    return cast(Square, np.add.reduceat(by_row, starts, axis=1))


def cosines(products: Square) -> Square:
    """The cosines between updates less their mean, from their `gram`; 0 with an update that is the mean itself."""
    centred = products - products.mean(0) - products.mean(1)[:, None] + products.mean()
    squares = np.diag(centred)
    norms = np.sqrt(np.where(squares > _NOTHING * np.diag(products).max(), squares, 0.0))
    scale = np.outer(norms, norms)
    found: Square = np.divide(centred, scale, out=np.zeros_like(centred), where=scale > 0)
    return found


def clusters(alike: Square, groups: int) -> list[int]:
    """Each update's cluster, at most `groups`, by average linkage over 1 - cosine; numbered as they first appear.

    As many updates as groups, or fewer, are each a cluster of their own.
    """
    if len(alike) == 1:
        return [0]
    apart = np.clip(1 - (alike + alike.T) / 2, 0, None)
    np.fill_diagonal(apart, 0.0)
    tree = scipy.cluster.hierarchy.linkage(scipy.spatial.distance.squareform(apart, checks=False), method="average")
    labels = scipy.cluster.hierarchy.fcluster(tree, groups, criterion="maxclust")
    order = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    return [order[label] for label in labels]


def nearest(alike: Square, known: Mapping[int, int], one: int) -> int:
    """The cluster of `known` (row -> cluster) whose rows are on average most like row `one`; of equals the first."""
    by_cluster: dict[int, list[float]] = {}
    for row, cluster in sorted(known.items()):
        by_cluster.setdefault(cluster, []).append(float(alike[one, row]))
    return max(sorted(by_cluster), key=lambda cluster: float(np.mean(by_cluster[cluster])))
