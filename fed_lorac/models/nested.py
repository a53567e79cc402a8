"""Which tensors of a checkpoint are the network's: under which key, behind which prefix. Knows names; not files or
layers."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from fed_lorac.errors import DataError

__all__ = ["chosen"]

# Words that training scripts and wrappers (DataParallel, torch.compile, Lightning, timm) use, likeliest first.
KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "ema",
    "state_dict_ema",
    "model_ema",
)
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.")
_DEEPEST = 3
_UNUSUAL = 100


@dataclass(frozen=True)
class _Place:
    """Tensors at one place of a file, by their names without a prefix, and how many of those the network has."""

    keys: tuple[str, ...]
    prefix: str
    tensors: Mapping[str, Tensor]
    beside: tuple[str, ...]
    fitting: int

    @property
    def rank(self) -> int:
        """The less, the likelier it is what was meant."""
        words = [1 + KEYS.index(key) if key in KEYS else _UNUSUAL for key in self.keys]
        return sum(words) + (_UNUSUAL if _unusual(self.prefix) else self.prefix.count("."))

    @property
    def words(self) -> str:
        """Where it is, for a message."""
        key = " in ".join(repr(key) for key in reversed(self.keys))
        parts = [f"its key {key}" if key else "", f"the prefix {self.prefix!r}" if self.prefix else ""]
        return " and ".join(filter(None, parts)) or "its top level"


def chosen(
    found: object, names: Collection[str], source: str
) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]]:
    """The tensors, at any depth of `found` and without a prefix, that fit most of `names`; the keys that lead to them;
    and what to say of it.

    Raises:
        DataError: there are no tensors by name, or two places fit alike and neither is the usual one.
    """
    places = [place for keys, tensors in _dicts(found, ()) for place in _places(keys, tensors, names)]
    if not places:
        raise DataError(
            f"A file of weights holds tensors by name; {source} holds {_kind(found)}. "
            'Save a state_dict: torch.save(model.state_dict(), "weights.pth").'
        )
    best = max(place.fitting for place in places)
    alike = sorted((place for place in places if place.fitting == best), key=lambda place: place.rank)
    taken, others = alike[0], alike[1:]
    if best and others and (taken.rank >= _UNUSUAL or others[0].rank == taken.rank):
        raise DataError(
            f"One set of weights is taken from a file; in {source} {taken.words} and {others[0].words} fit alike. "
            "Save the one that is meant."
        )
    return dict(taken.tensors), taken.keys, tuple(_notes(taken, others if best else []))


def _dicts(found: object, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every dict with tensors by name in it, and the keys that lead there."""
    if not isinstance(found, Mapping) or len(keys) > _DEEPEST:
        return
    named = {name: value for name, value in found.items() if isinstance(name, str)}
    if tensors := {name: value.detach() for name, value in named.items() if isinstance(value, Tensor)}:
        yield keys, tensors
    for name, value in named.items():
        yield from _dicts(value, (*keys, name))


def _places(keys: tuple[str, ...], tensors: Mapping[str, Tensor], names: Collection[str]) -> Iterator[_Place]:
    """The tensors as they are, and behind each prefix that makes one of `names` of theirs."""
    ordered = sorted(names)  # a few of the network's names are enough to see the prefixes by; a file may lack some
    marks = {ordered[len(ordered) * part // 4] for part in range(4)} if ordered else set()
    prefixes = {key.removesuffix(mark) for mark in marks for key in tensors if key.endswith(f".{mark}")}
    for prefix in ("", *sorted(prefixes)):
        own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        beside = tuple(key for key in tensors if not key.startswith(prefix))
        fitting = len(own.keys() & set(names))
        if not prefix or 2 * fitting > len(names):  # a block of another network has a few of the names too
            yield _Place(keys, prefix, own, beside, fitting)


def _unusual(prefix: str) -> bool:
    """Whether a prefix is not made of wrappers' words alone."""
    words = [f"{word}." for word in prefix.split(".")[:-1]]
    return any(word not in PREFIXES for word in words)


def _notes(taken: _Place, others: Collection[_Place]) -> Iterator[str]:
    if taken.keys:
        yield f"taken from {_Place(taken.keys, '', {}, (), 0).words}"
    if taken.prefix:
        yield f"prefix {taken.prefix!r} stripped"
    if taken.beside:
        shown = ", ".join(taken.beside[:3]) + (", ..." if len(taken.beside) > 3 else "")
        yield f"left out: {len(taken.beside)} tensors without that prefix ({shown})"
    for other in others:
        yield f"{other.words} would fit too, and was left"


def _kind(found: object) -> str:
    if isinstance(found, Mapping):
        return f"a dict without tensors (keys {', '.join(map(repr, list(found)[:3]))})" if found else "an empty dict"
    return {list: "a list", tuple: "a tuple", Tensor: "one tensor"}.get(type(found), f"a {type(found).__name__}")
