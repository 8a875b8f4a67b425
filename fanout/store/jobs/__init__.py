"""Batch jobs in the database: their inputs, leases, journal and results."""
