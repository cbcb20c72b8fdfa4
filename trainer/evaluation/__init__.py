"""Held-out measurements: prompts, noise, policies, scores over HTTP, tables with intervals."""
