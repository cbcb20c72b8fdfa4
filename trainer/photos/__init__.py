"""Photographs: prompts for models that know the world, in GenEval's metadata."""
