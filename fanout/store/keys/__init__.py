"""Callers' keys that the database holds: their secrets, what they have used, and who changed them."""
