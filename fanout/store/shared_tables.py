"""The tables of what processes that share a store tell each other, beside those of `tables.py`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Table

from fanout.store.engine.text_columns import StorableText
from fanout.store.tables import metadata

processes = Table(
    "processes",
    metadata,
    Column("id", StorableText, primary_key=True),
    Column("kind", StorableText, nullable=False),  # `serve`, `worker` or `batch`
    Column("host", StorableText, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("version", StorableText, nullable=False),
    # JSON: the accounts whose jobs it takes; NULL: all, an empty list: none
    Column("accounts", StorableText),
    Column("state", StorableText, nullable=False),  # `working` or `draining`
    Column("activity", StorableText, nullable=False),  # JSON
    # By `Database.lease_clock`, which all of them share.
    Column("started", Double, nullable=False),
    Column("seen", Double, nullable=False),
)
"""The processes that share the store. Each renews its row every few seconds, and deletes it when it ends."""

shared_limits = Table(
    "shared_limits",
    metadata,
    Column("account", StorableText, primary_key=True),  # provider, limit group, and the digest of a caller's own key
    Column("written", Double, nullable=False),  # by the clock of leases
    Column("state", StorableText, nullable=False),  # JSON: see `limits/shared/account.py`
)
"""What processes have used of limits that they share, and what they hold of them."""
