"""Usage by minute, account and model."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("minute", sa.BigInteger, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("upstream_model", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("calls", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("unknown_usage", sa.BigInteger, nullable=False),
        sa.Column("cost_usd", sa.Double),
        sa.Column("cost_unknown", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("minute", "account_id", "model", "provider", "upstream_model", "result", name="usage_key"),
        sqlite_with_rowid=False,
    )
