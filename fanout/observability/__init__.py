"""Logs, metrics and the recent health of provider accounts."""
