"""Batch jobs in the database."""
