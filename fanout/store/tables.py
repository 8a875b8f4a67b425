"""The tables, the same on SQLite and PostgreSQL. `migrations/` makes them; a test holds the two against each other."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, MetaData, PrimaryKeyConstraint, Table, Text

metadata = MetaData()

usage = Table(
    "usage",
    metadata,
    # Unix seconds of its start: days and hours are plain divisions, on every database.
    Column("minute", BigInteger, nullable=False),
    Column("account_id", Text, nullable=False),  # empty: nobody's
    Column("model", Text, nullable=False),  # as the caller wrote it
    Column("provider", Text, nullable=False),  # empty: no model has that name
    Column("upstream_model", Text, nullable=False),
    Column("result", Text, nullable=False),  # `answered`, or the failure's kind: a new kind needs no new column
    Column("calls", BigInteger, nullable=False),
    # Sums over what is known, NULL while nothing is: SUM() passes over NULL and gives it where there is nothing else.
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("unknown_usage", BigInteger, nullable=False),
    Column("cost_usd", Double),
    Column("cost_unknown", BigInteger, nullable=False),
    PrimaryKeyConstraint("minute", "account_id", "model", "provider", "upstream_model", "result", name="usage_key"),
    sqlite_with_rowid=False,  # the rows stand in their key's own tree: half the file
)
"""Calls by minute, account and model, once for every way in which they ended."""
