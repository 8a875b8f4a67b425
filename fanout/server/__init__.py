"""Doors to the world: the HTTP server and its dialects."""
