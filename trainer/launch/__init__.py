"""Starts processes: a reward server beside a run, and a run that shares the cores."""
