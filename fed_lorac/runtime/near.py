"""Which known name a wrong one was meant to be, where one is near. Knows words; nothing else."""

from collections.abc import Iterable
from difflib import SequenceMatcher

__all__ = ["did_you_mean", "nearest"]

_NEAR = 0.6  # below, a suggestion is more often wrong than right: difflib's own cut-off


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " Did you mean 'rank'?", with a blank before it to follow a sentence; empty where no known name is near."""
    near = nearest(word, known)
    return f" Did you mean {near!r}?" if near else ""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name most like `word`, whatever its case; None where none is like it.

    Of names with a section (`fleet.rank`) the key must be alike, and a right key weighs more than a right section.
    """
    section, key = _parts(word)

    def alike(name: str) -> float:
        return _ratio(key, _parts(name)[1])

    def likeness(name: str) -> float:
        its_section, its_key = _parts(name)
        whole = _ratio(word.casefold(), name.casefold())
        return whole + alike(name) + 0.25 * (section == its_section) + 0.5 * (key == its_key)

    return max((name for name in known if alike(name) >= _NEAR), key=likeness, default=None)


def _parts(name: str) -> tuple[str, str]:
    section, _, key = name.casefold().rpartition(".")
    return section, key


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()
