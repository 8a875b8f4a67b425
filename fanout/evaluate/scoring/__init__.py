"""Scoring of jobs: declared scorers, applied to answers as they end, or to stored ones."""
