"""Logs: a run as it goes, through a library that draws it. Knows rows and summaries; not how they came about."""
