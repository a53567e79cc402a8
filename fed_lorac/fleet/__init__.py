"""Cameras: their images, their weather over the rounds, and their links."""
