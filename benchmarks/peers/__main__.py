"""`python -m peers NAME`: one arm, whole, as a process of its own; settings and result are files in its environment."""

import sys
from importlib import import_module

if __name__ == "__main__":
    import_module(f"peers.{sys.argv[1]}").run()
