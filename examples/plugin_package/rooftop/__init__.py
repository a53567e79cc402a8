"""Five parts of one's own for fed-lorac, each in a file. `pyproject.toml` gives them their names."""
