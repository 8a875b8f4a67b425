"""Fanout: one prompt to many language models at once, the answers side by side."""

__version__ = "0.1.0"
