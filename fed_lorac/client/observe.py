"""What a simulation sees of a camera that learns without labels, since it knows the truth. Nothing of it goes back into
the camera, and none of it is billed. Knows guesses and labels; not networks or messages."""

from collections.abc import Mapping

from jaxtyping import Int64
from torch import Tensor

from fed_lorac.training.objectives.guessed import Guessed
from fed_lorac.training.objectives.objective import NO_LABEL

__all__ = ["COLLAPSED", "observe"]

COLLAPSED = "collapsed"


def observe(guessed: Guessed, known: Int64[Tensor, " n"], truth: Int64[Tensor, " n"]) -> Mapping[str, float]:
    """One local update as the columns of `records.ledger.GUESSING_CAMERA_COLUMNS`.

    Args:
        guessed: the camera's guesses; its images are places in `truth`.
        known: the labels that it has.
        truth: all labels.
    """
    right, used = guessed.targets == truth[guessed.images], guessed.used
    first = _first(guessed.images, len(truth))
    found = {
        "labels_used": int((known[guessed.images.unique()] != NO_LABEL).sum()),
        "online_accuracy": float((guessed.predicted == truth[guessed.images])[first].double().mean()),
        "pseudo_label_coverage": float(used.double().mean()),
        COLLAPSED: guessed.collapsed,
    }
    return found | ({"pseudo_label_precision": float(right[used].double().mean())} if used.any() else {})


def _first(images: Int64[Tensor, " m"], count: int) -> Int64[Tensor, " seen"]:
    """Where each image was seen for the first time."""
    first = images.new_full((count,), len(images))
    order = images.new_tensor(range(len(images)))
    first.scatter_reduce_(0, images, order, "amin")
    return first[first < len(images)]
