"""Commands that are more than a few lines, a file each. The command line itself is `fed_lorac.cli`."""
