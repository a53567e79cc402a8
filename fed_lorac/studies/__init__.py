"""Studies: many runs that belong together, from one file to one table. Knows runs; not what a run computes."""
