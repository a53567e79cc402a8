"""`python -m fed_lorac` is `fed-lorac`. Ctrl-C while it imports ends it as at any other moment."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    try:
        from fed_lorac.cli import main as run  # noqa: PLC0415  (takes most of a second)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
