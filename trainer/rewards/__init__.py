"""Prompts, groups of pictures of one prompt, and the requests that have them scored."""
