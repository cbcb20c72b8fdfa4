"""Scorer processes: the pool that a server keeps, the loop in each, and who started it."""
