"""Nouns and pure functions shared by every part: types, errors, merging, JSON."""
