"""Tests of callers' keys: who may do what, and how much."""
