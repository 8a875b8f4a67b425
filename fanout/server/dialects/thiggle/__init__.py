"""Thiggle's endpoint: one prompt to many models."""
