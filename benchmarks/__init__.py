"""Measurements and endurance runs of the reward server; needs the ``dev`` extra."""
