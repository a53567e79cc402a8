"""Cameras: who sees what, when, over which link."""
