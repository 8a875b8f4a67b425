"""Versions, in the order of their numbers. A released version is never changed."""
