"""A matrix of runs and the page of its results."""
