"""Radios: how a message crosses a link, in packets, seconds and joules. Knows bytes; not cameras, rounds or configs."""
