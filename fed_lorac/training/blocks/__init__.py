"""Several cameras' networks trained as one. Knows layers, networks and their sizes; not cameras, rounds or messages."""

from fed_lorac.training.blocks.rule import block_size
from fed_lorac.training.blocks.stack import Alone, Stack, check_equal, draws, row_norms, still, why_apart

__all__ = ["Alone", "Stack", "block_size", "check_equal", "draws", "row_norms", "still", "why_apart"]
