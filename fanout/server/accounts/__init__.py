"""Callers by their keys: who they are, what they may do, and what they have used."""
