"""What a server makes of a round's deltas: one published method a file, each a value. Import from the files."""
