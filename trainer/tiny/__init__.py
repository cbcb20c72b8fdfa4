"""The embedded world: a renderer, its prompts, and a text-to-image model small enough for a laptop.

Nothing outside this package knows about shapes and signs; the trainer sees a pipeline folder and
prompt files, exactly as it would with a full-size model.
"""
