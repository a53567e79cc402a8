"""A whole run: rounds, strategies, engines."""
