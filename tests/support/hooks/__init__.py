"""Hooks outside the package, for tests."""
