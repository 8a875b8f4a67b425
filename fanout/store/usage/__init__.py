"""Usage of accounts and models, counted and queried."""
