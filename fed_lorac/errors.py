"""One exception tree. Every message states the law, what came, and the remedy."""

import re

__all__ = [
    "ConfigError",
    "DataError",
    "FactorError",
    "FedLoracError",
    "FrameError",
    "RunError",
    "UnreadableError",
    "kind_of",
    "last_line",
    "one_line",
]


class FedLoracError(Exception):
    """The root: catch this to catch everything this package raises on purpose."""

    def __str__(self) -> str:
        # A file's name may be no text. Terminals, ledgers and messages take text only.
        return super().__str__().encode(errors="backslashreplace").decode()


class ConfigError(FedLoracError):
    """A setting is unknown, ill-typed, out of range, or makes no sense beside another."""


class DataError(FedLoracError):
    """Images, labels or weights on disk are missing, damaged or do not fit together."""


class FactorError(FedLoracError):
    """Low-rank factors do not fit their convolution, or a layer cannot carry them."""


class FrameError(FedLoracError):
    """Bytes from the radio are not an intact frame for this base model."""


class RunError(FedLoracError):
    """A simulation cannot start or go on."""


class UnreadableError(RunError):
    """A file that is there cannot be read, so what it holds is not known: not the same as that it holds nothing."""


def kind_of(text: str | None) -> str:
    """An error's text without its numbers: the same for what two cameras say of one failure."""
    return re.sub(r"\d+", "#", text or "")


def one_line(error: BaseException) -> str:
    """What was raised, kind and text, on one line: fit for a ledger and for a reply."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def last_line(text: str | None, otherwise: str = "") -> str:
    """The last line that is not empty: of a traceback, the exception's own."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1] if lines else otherwise
