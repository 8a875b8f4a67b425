"""The history of interactive comparisons."""
