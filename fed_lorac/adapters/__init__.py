"""Adapters: what a camera trains and uploads in place of a whole network. One file a method; import from the files."""
