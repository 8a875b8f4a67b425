"""Limits that several processes keep together, through one row of their database for each account and limit group."""
