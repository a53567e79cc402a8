"""Ledger files as pandas data frames. Knows columns; not what they mean."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fed_lorac.records.columns import NUMBER, Kind
from fed_lorac.records.ledger import read_rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["table"]


def table(file: Path, columns: Mapping[str, Kind]) -> "pd.DataFrame":
    """A ledger file with its columns in order; a number that is not there (JSON's null, an older version) is NaN.

    Raises:
        RunError: the file is missing or damaged.
    """
    import pandas as pd  # noqa: PLC0415  (half a second, for those who look at tables)

    found = pd.DataFrame(read_rows(file).rows, columns=list(columns))
    return found.astype({name: "float64" for name, kind in columns.items() if kind is NUMBER})
