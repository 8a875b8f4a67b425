"""The database: opening, transactions, tables and migrations."""
