"""Templates: which tensors a frame holds, where both ends know them and the frame need not say. Knows names and shapes;
not values, checksums or who the ends are.

A template lists tensors. Of each, a frame has a choice:

    0      it is there, in the template's shape
    1      it is not there
    1 + R  a factor pair of R components is there in its stead, "<name>.A" (R, columns) and "<name>.B" (rows, R)

The third is open to tensors with a view (rows, columns): so an update may be low-rank or dense, layer by layer, as the
round demands. A frame spells the choices as runs, (how many in a row, choice); zeros at the end are left out, so a
frame of exactly the template's tensors takes one byte for all of them. There is one spelling for a set of choices, and
the reader refuses every other. A pair holds at most `MOST_IN_PAIR` times the numbers of the tensor that it stands for:
R is a stranger's word, and an entropy-coded payload of zeros takes next to no bytes. Tensors with a view come first,
those of one kernel beside one another, as they have one rank; then by UTF-8 bytes.

What is found for a template is kept: a run's frames differ in values, hardly ever in choices.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby

from fed_lorac.wire.layout import Cursor, Entry, Shape, check_limits, malformed_table, pack_table, varint

__all__ = ["MOST_IN_PAIR", "Template", "choices_of", "entries_of", "template_of"]

_THERE, _ABSENT = 0, 1

MOST_IN_PAIR = 8
"""Twice the dense tensor is a pair of full rank, of a square view; a method's rank may be above that in a network's
first layer. A larger pair goes with its names, where each number costs bytes."""


@dataclass(frozen=True, eq=False)
class Template:
    """Tensors that two ends agree on: (name, shape, view) in the order of a frame's choices; `template_of` makes one.

    `tag` stands for it in a frame: 4 bytes of the SHA-256 of all that it lists.
    """

    tensors: tuple[tuple[str, Shape, Shape | None], ...] = field(repr=False)
    tag: bytes


def template_of(shapes: Mapping[str, Sequence[int]], views: Mapping[str, tuple[int, int]] | None = None) -> Template:
    """The template of tensors by name; those in `views`, (rows, columns) by name, may go as factor pairs instead.

    Equal arguments, in whatever order, give one object. FrameError where a frame could not hold them.
    """
    entries = frozenset((name, tuple(shape)) for name, shape in shapes.items())
    return _template(entries, frozenset((views or {}).items()))


@lru_cache(maxsize=64)
def _template(shapes: frozenset[Entry], views: frozenset[tuple[str, Shape]]) -> Template:
    of, listed = dict(views), sorted(shapes, key=lambda entry: entry[0].encode())
    tensors = [(name, shape, of.get(name)) for name, shape in listed]
    said = pack_table(listed) + pack_table(sorted(views, key=lambda entry: entry[0].encode()))
    alike = sorted((one for one in tensors if one[2]), key=lambda one: one[1][2:])
    ordered = (*alike, *(one for one in tensors if not one[2]))
    return Template(ordered, hashlib.sha256(said).digest()[:4])


@lru_cache(maxsize=256)
def choices_of(template: Template, sent: frozenset[Entry]) -> bytes | None:
    """How a frame of the template spells these tensors; None where they are not the template's."""
    left = dict(sent)
    choices = [_choice(left, *tensor) for tensor in template.tensors]
    return None if left else _pack(choices)


def _choice(left: dict[str, Shape], name: str, shape: Shape, view: Shape | None) -> int:
    """What became of one tensor; what it takes of those that are left is taken away."""
    if left.get(name) == shape:
        del left[name]
        return _THERE
    if view is not None:
        (a, b), (rows, columns) = _pair(name), view
        rank = (left.get(a) or (0,))[0]
        if rank and _is_open(rank, view) and left.get(a) == (rank, columns) and left.get(b) == (rows, rank):
            del left[a], left[b]
            return _ABSENT + rank
    return _ABSENT


def _is_open(rank: int, view: Shape) -> bool:
    rows, columns = view
    return rank * (rows + columns) <= MOST_IN_PAIR * rows * columns


def _pair(name: str) -> tuple[str, str]:
    stem = name.removesuffix(".weight")
    return f"{stem}.A", f"{stem}.B"


def _pack(choices: Iterable[int]) -> bytes:
    runs = [(choice, len(list(run))) for choice, run in groupby(choices)]
    if runs and runs[-1][0] == _THERE:
        runs.pop()
    return b"".join(map(varint, [len(runs), *(number for choice, length in runs for number in (length, choice))]))


@lru_cache(maxsize=256)
def entries_of(template: Template, said: bytes) -> tuple[Entry, ...]:
    """The tensors that a frame of the template spells so, sorted by name; FrameError where no sender spells so."""
    cursor, choices = Cursor(memoryview(said)), list[int]()
    for _ in range(cursor.varint()):
        length, choice = cursor.varint(), cursor.varint()
        if length > len(template.tensors) - len(choices):
            raise malformed_table("its runs are of more tensors than the template has")
        choices += [choice] * length
    if _pack(choices) != said:
        raise malformed_table("its runs are not in their one spelling")
    choices += [_THERE] * (len(template.tensors) - len(choices))
    entries = [
        entry for choice, tensor in zip(choices, template.tensors, strict=True) for entry in _entries(choice, *tensor)
    ]
    for name, shape in entries:
        check_limits(len(entries), name.encode(), shape, "malformed table")
    return tuple(sorted(entries, key=lambda entry: entry[0].encode()))


def _entries(choice: int, name: str, shape: Shape, view: Shape | None) -> list[Entry]:
    if choice in (_THERE, _ABSENT):
        return [(name, shape)] if choice == _THERE else []
    if view is None:
        raise malformed_table(f"{name[:64]!r} comes as a factor pair, which it cannot")
    if not _is_open(choice - _ABSENT, view):
        raise malformed_table(
            f"{name[:64]!r} comes as a factor pair of {choice - _ABSENT} components, more than {MOST_IN_PAIR} times "
            "its own numbers"
        )
    (a, b), (rows, columns) = _pair(name), view
    return [(a, (choice - _ABSENT, columns)), (b, (rows, choice - _ABSENT))]
