"""Metadata that somebody else may have written. Knows errors; not what a file holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fed_lorac.errors import DataError, FedLoracError, one_line

__all__ = ["read_from"]


@contextmanager
def read_from(path: Path) -> Iterator[None]:
    """Turn whatever a file's own words make of their reader (a key is missing, no JSON, no number) into a DataError."""
    try:
        yield
    except FedLoracError:
        raise
    except Exception as error:  # a file may say anything, and a builder may raise anything at it
        raise DataError(
            f"An exported file says what it holds in the words of `fed-lorac export`; {path} does not: "
            f"{one_line(error)}. Export it again."
        ) from error
