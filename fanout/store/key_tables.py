"""The tables of callers' keys, beside those of `tables.py`, and of who changed what."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, PrimaryKeyConstraint, Table

from fanout.store.engine.text_columns import StorableText
from fanout.store.tables import metadata

keys = Table(
    "keys",
    metadata,
    Column("id", StorableText, primary_key=True),
    Column("created", Double, nullable=False),
    Column("created_by", StorableText, nullable=False),
    Column("name", StorableText, nullable=False),
    Column("account_id", StorableText, nullable=False),
    Column("role", StorableText, nullable=False),
    Column("limits", StorableText, nullable=False),  # JSON; what is absent has no limit
    Column("expires", Double),
    Column("revoked", Double),
    Index("keys_created", "created", "id"),
)
"""Callers' keys. Rows are never deleted: what a key has cost stays its account's."""

key_secrets = Table(
    "key_secrets",
    metadata,
    Column("prefix", StorableText, primary_key=True),  # of the key as its holder sends it
    Column("key_id", StorableText, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),  # HMAC-SHA256 of the secret under the salt
    Column("created", Double, nullable=False),
    Column("expires", Double),  # set when the key is rotated: the old secret stays good for a while
    Index("key_secrets_key", "key_id"),
)
"""The secrets of keys, as nobody can read them back."""

key_spending = Table(
    "key_spending",
    metadata,
    Column("key_id", StorableText, nullable=False),
    Column("day", BigInteger, nullable=False),  # since 1970, UTC
    Column("requests", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost_usd", Double, nullable=False),
    PrimaryKeyConstraint("key_id", "day", name="key_spending_key"),
    sqlite_with_rowid=False,
)
"""What keys have used, by day. Apart from `usage`, which retention deletes."""

key_minutes = Table(
    "key_minutes",
    metadata,
    Column("key_id", StorableText, nullable=False),
    Column("minute", BigInteger, nullable=False),  # since 1970
    Column("requests", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    PrimaryKeyConstraint("key_id", "minute", name="key_minutes_key"),
    sqlite_with_rowid=False,
)
"""The requests and tokens of the last minutes, so that a restart forgets no limit."""

audit = Table(
    "audit",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("time", Double, nullable=False),
    Column("event", StorableText, nullable=False),
    Column("actor", StorableText, nullable=False),
    Column("subject", StorableText, nullable=False),
    Column("details", StorableText, nullable=False),  # JSON
)
"""Who changed what, when. The migration adds triggers that refuse every change of a row."""
