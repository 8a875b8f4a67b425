"""The migrations of the tables: Alembic's environment, and one file for each version."""
