"""Optimisers of the LoRA factors."""
