"""Batch jobs, and the files they are made of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("items", sa.BigInteger, nullable=False),
        sa.Column("units", sa.BigInteger, nullable=False),
        sa.Column("started", sa.Double),
        sa.Column("ended", sa.Double),
        sa.Column("rate", sa.Double),
        sa.Column("owner", sa.Text),
        sa.Column("lease_until", sa.Double),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("forked_from", sa.Text),
    )
    op.create_table(
        "items",
        sa.Column("job", sa.BigInteger, nullable=False),
        sa.Column("item", sa.BigInteger, nullable=False),
        sa.Column("line", sa.BigInteger, nullable=False),
        sa.Column("custom_id", sa.Text),
        sa.Column("body", sa.Text),
        sa.Column("digest", sa.LargeBinary),
        sa.PrimaryKeyConstraint("job", "item", name="items_key"),
    )
    op.create_table(
        "units",
        sa.Column("job", sa.BigInteger, nullable=False),
        sa.Column("item", sa.BigInteger, nullable=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("repeat", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("ended", sa.Double, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("cost_usd", sa.Double),
        sa.Column("total_ms", sa.BigInteger, nullable=False),
        sa.Column("answer", sa.LargeBinary),
        sa.Column("record", sa.Text),
        sa.Column("digest", sa.LargeBinary),
        sa.Column("cache_key", sa.LargeBinary),
        sa.Column("cached_from", sa.Text),
        sa.PrimaryKeyConstraint("job", "item", "entry", "repeat", name="units_key"),
    )
    op.create_table(
        "attempts",
        sa.Column("job", sa.BigInteger, nullable=False),
        sa.Column("item", sa.BigInteger, nullable=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("repeat", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("started", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("job", "item", "entry", "repeat", "attempt", name="attempts_key"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "failures",
        sa.Column("job", sa.BigInteger, nullable=False),
        sa.Column("item", sa.BigInteger, nullable=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("repeat", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("ended", sa.Double, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("failure", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job", "item", "entry", "repeat", "attempt", name="failures_key"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "job_counts",
        sa.Column("job", sa.BigInteger, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("calls", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("unknown_usage", sa.BigInteger, nullable=False),
        sa.Column("cost_usd", sa.Double),
        sa.Column("cost_unknown", sa.BigInteger, nullable=False),
        sa.Column("total_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("job", "model", "result", name="job_counts_key"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "texts",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "files",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("job", sa.Text),
        sa.Column("expires", sa.Double),
    )
    op.create_table(
        "file_parts",
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("part", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("file", "part", name="file_parts_key"),
    )
    op.create_index(
        "units_cache",
        "units",
        ["cache_key"],
        sqlite_where=sa.text("cache_key IS NOT NULL"),
        postgresql_where=sa.text("cache_key IS NOT NULL"),
    )
