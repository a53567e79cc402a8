"""The columns of a paired test: each row against one of them. Knows cells; not runs."""

from collections.abc import Iterator, Sequence

from fed_lorac.reporting.cells import EMPTY, Cell, chance, points
from fed_lorac.reporting.paired import Scores, difference, holm

__all__ = ["CHANCE", "DIFFERENCE", "no_test", "paired_cells", "paired_notes"]

DIFFERENCE, CHANCE = "difference, points", "p"


def paired_cells(pairs: Sequence[tuple[Scores, Scores] | None]) -> list[tuple[Cell, ...]]:
    """Of each row, given as its scores and those that it is held against, the difference and its p-value among those of
    all rows. Two empty cells of a row that is None, or has no camera in common; no cells where no row has any."""
    found = [None if pair is None else difference(*pair) for pair in pairs]
    among = iter(holm([one.p for one in found if one is not None]))
    cells = [(EMPTY, EMPTY) if one is None else (points(one), chance(next(among))) for one in found]
    return list(cells) if any(found) else [()] * len(pairs)


def paired_notes(reference: str) -> Iterator[str]:
    """What the two columns mean."""
    yield (
        f'"{DIFFERENCE}": accuracy minus that of "{reference}" on the same cameras and seeds; ± half of its 95 % '
        "interval over seeds, if there are several."
    )
    yield (
        f'"{CHANCE}": two-sided p-value of a paired sign-flip test over cameras, whose differences are first averaged '
        "over seeds; Holm-corrected for the number of rows tested."
    )


def no_test(reference: str) -> str:
    """Why a table of several rows has none of the two."""
    return (
        f'No paired test: no row has the cameras of "{reference}" in the same weather, each with its accuracy recorded.'
    )
