"""The classes of a checkpoint's classifier, compared with those of the data. Knows names and rows; not files,
data sets or the rest of a network."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from fed_lorac.models.read import Checkpoint

__all__ = ["classes_of", "difference", "in_order", "reordered"]

_SHOWN = 10
_ALIKE: dict[str, Callable[[str], str]] = {
    "leading zeros": lambda name: re.sub(r"(?<!\d)0+(?=\d)", "", name),
    "capitals": str.casefold,
    "blanks, hyphens or underscores": lambda name: re.sub(r"[\s_-]+", "", name),
}


def classes_of(checkpoint: Checkpoint, classifier: Sequence[str]) -> tuple[str, ...] | None:
    """The classes that the metadata names, a row of the `classifier`'s tensors each; None where it does not.

    They are JSON, because a name may have a comma in it; older checkpoints have them with commas between.
    """
    said, rows = (
        checkpoint.metadata.get("classes", ""),
        next((checkpoint.tensors.get(name) for name in classifier), None),
    )
    found = _listed(said)
    fits = found and len(set(found)) == len(found) and (rows is None or len(rows) == len(found))
    return found if fits else None


def _listed(text: str) -> tuple[str, ...]:
    try:
        found = json.loads(text)
    except ValueError:
        return tuple(text.split(",")) if text else ()
    return tuple(found) if isinstance(found, list) and all(isinstance(name, str) for name in found) else ()


def reordered(
    checkpoint: Checkpoint, classifier: Sequence[str], its: Sequence[str], wanted: Sequence[str]
) -> Checkpoint:
    """The checkpoint with its classifier's rows in the order of `wanted`, which are the same names."""
    rows = torch.tensor([its.index(name) for name in wanted])
    moved = {name: checkpoint.tensors[name][rows] for name in classifier if name in checkpoint.tensors}
    note = "its classes come in another order than the data's: the classifier's rows were permuted to the data's"
    return replace(checkpoint, tensors={**checkpoint.tensors, **moved}, notes=(*checkpoint.notes, note))


def in_order(names: Sequence[str]) -> str:
    """The first names, in words."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def difference(its: Sequence[str], wanted: Sequence[str]) -> str:
    """In words, how the checkpoint's classes and the data's differ, and the likely cause where it is of spelling."""
    ours, theirs = ([name for name in one if name not in other] for one, other in ((its, wanted), (wanted, its)))
    return (
        f"of its {len(its)} classes the data lacks {_first(ours)}, and of the data's {len(wanted)} it lacks "
        f"{_first(theirs)}{_cause(its, wanted)}"
    )


def _cause(its: Sequence[str], wanted: Sequence[str]) -> str:
    for what, plain in _ALIKE.items():
        if len(its) == len(wanted) and set(map(plain, its)) == set(map(plain, wanted)):
            return f". They differ in {what} alone"
    return ""


def _first(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "") if names else "none"
