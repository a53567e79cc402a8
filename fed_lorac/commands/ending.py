"""How a command ends, whatever ends it: last words and exit code. Knows typer and rich; not what commands do."""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from inspect import cleandoc, unwrap
from typing import Any, NoReturn, get_type_hints

from rich.console import Console
from rich.markup import escape
from typer.core import TyperArgument, TyperGroup

from fed_lorac.errors import ConfigError, FedLoracError
from fed_lorac.runtime.kind import outside_module

__all__ = ["Commands", "ended"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _Unheard(BaseException):
    """What click would not let out of a command as it is; its cause says what."""


class Commands(TyperGroup):
    """The commands, as click runs them, but for what it would hide."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command. click takes any EOFError, that of a damaged file too, for a key, and says "Aborted."."""
        try:
            return super().invoke(ctx)
        except (EOFError, KeyboardInterrupt) as error:
            raise _Unheard from error

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, with two things put right that typer leaves: its help keeps line breaks of the source
        after the first paragraph, and under click 8.5 the typer that Flower asks for loses arguments' help."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and command.callback is not None:
            paragraphs = cleandoc(command.help or "").split("\n\n")
            command.help = "\n\n".join(" ".join(one.split()) for one in paragraphs)
            hints = get_type_hints(unwrap(command.callback), include_extras=True)
            for argument in (one for one in command.params if isinstance(one, TyperArgument)):
                argument.help = hints[str(argument.name)].__metadata__[0].help
        return command


def ended(app: Callable[[], object], err: Console) -> None:
    """Run the command line and leave as it ends: errors of ours are one message, not a traceback."""
    try:
        app()
    except FedLoracError as error:
        err.print(f"[bold red]{type(error).__name__}[/bold red]:", escape(str(error)), highlight=False, soft_wrap=True)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None
    except _Unheard as unheard:
        _leave(unheard.__cause__, err)
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            _leave(error, err)
        _leave_unsaid(error, err)
    except Exception as error:
        _leave(error, err)
    finally:
        _flush(err)


def _leave(error: BaseException | None, err: Console) -> NoReturn:
    """After Ctrl-C, or after what nobody expected: a traceback, and what to do with it."""
    if not isinstance(error, KeyboardInterrupt):
        traceback.print_exception(error)
        whose = outside_module(error) if error else ""
        mend = f"The error arose in {whose}, which is not part of fed-lorac: fix it there (docs/extending.md)."
        report = "fed-lorac did not expect this. Please report it, with the lines above, the command and its config."
        err.print(mend if whose else report, markup=False, highlight=False)
        raise SystemExit(1)
    err.print("Interrupted.")
    _flush(err)
    # All of ours is written. Flower's pool may hold a thread that waits for a Ray that is gone, and Python would
    # wait for that thread for ever.
    os._exit(130)


def _flush(err: Console) -> None:
    """Write out what was said; where its reader has left (`| head`), say no more and leave quietly."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _say_no_more()
    except OSError as error:
        _leave_unsaid(error, err)


def _leave_unsaid(error: OSError, err: Console) -> NoReturn:
    """Where standard output takes no more: files that we write say themselves which they are."""
    _say_no_more()
    said = f"Output must be writable; standard output: {error.strerror}. Free some space, or send it elsewhere."
    err.print("[bold red]RunError[/bold red]:", escape(said), highlight=False, soft_wrap=True)
    raise SystemExit(1) from None


def _say_no_more() -> None:
    """Python would try to write what is left at its very end, and fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
