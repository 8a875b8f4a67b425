"""Statistics of comparisons: pure functions on plain arrays, which need the extra `evaluate`.

Items (prompts) are the unit of inference: repeats of an item are averaged first, in `report/matrix.py`. A figure that
the data cannot support is `None`, with a sentence in `note` that states why. docs/statistics.md has formulas and sources.
"""
