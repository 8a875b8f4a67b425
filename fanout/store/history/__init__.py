"""History of interactive comparisons."""
