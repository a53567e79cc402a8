"""How numbers travel, by name."""
