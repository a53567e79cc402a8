"""The library: what `import fed_lorac as fl` gives. Knows runs and their folders; not the command line."""
