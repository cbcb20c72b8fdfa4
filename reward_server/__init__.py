"""The reward server: scores images by machines and by people, over HTTP, and loses nothing.

Never imports the trainer, and torch nowhere.
"""

__version__ = "0.1.0"
