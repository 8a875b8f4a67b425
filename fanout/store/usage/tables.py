"""The table of usage."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, PrimaryKeyConstraint, Table

from fanout.store.engine.metadata import metadata
from fanout.store.engine.text_columns import StorableText

usage = Table(
    "usage",
    metadata,
    # Unix seconds of its start, so that days and hours are plain divisions on every database.
    Column("minute", BigInteger, nullable=False),
    Column("account_id", StorableText, nullable=False),  # empty: none
    Column("model", StorableText, nullable=False),  # as the caller wrote it
    Column("provider", StorableText, nullable=False),  # empty: no model has that name
    Column("upstream_model", StorableText, nullable=False),
    Column("result", StorableText, nullable=False),  # `answered`, or the failure's kind: a new kind needs no new column
    Column("calls", BigInteger, nullable=False),
    # Sums of the known figures, NULL while none is known: SUM() skips NULL, and returns it if there is nothing else.
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("unknown_usage", BigInteger, nullable=False),
    Column("cost_usd", Double),
    Column("cost_unknown", BigInteger, nullable=False),
    PrimaryKeyConstraint("minute", "account_id", "model", "provider", "upstream_model", "result", name="usage_key"),
    sqlite_with_rowid=False,  # the rows stand in the tree of their key: half the file
)
"""Sums of calls by minute, account, model and result."""
