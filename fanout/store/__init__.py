"""The store: tables that outlive the process, in an embedded SQLite file or, by URL, in PostgreSQL."""
