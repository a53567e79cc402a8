"""`python -m fed_lorac` is `fed-lorac`."""

from fed_lorac.cli import main

if __name__ == "__main__":
    main()
