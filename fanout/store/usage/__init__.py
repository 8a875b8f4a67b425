"""Usage of accounts and models."""
