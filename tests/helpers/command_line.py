"""The command line in this process: words in, an exit code out."""

import sys

import pytest

from fed_lorac import cli


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of `fed-lorac WORDS`, in this process."""
    monkeypatch.setattr(sys, "argv", ["fed-lorac", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)
