"""Votes: people's blind choices between answers, and their scores."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "votes",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("drawn", sa.Double, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("rater", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text),
        sa.Column("comparison_id", sa.Text),
        sa.Column("item", sa.BigInteger, nullable=False),
        sa.Column("entry_a", sa.BigInteger, nullable=False),
        sa.Column("repeat_a", sa.BigInteger, nullable=False),
        sa.Column("model_a", sa.Text, nullable=False),
        sa.Column("entry_b", sa.BigInteger),
        sa.Column("repeat_b", sa.BigInteger),
        sa.Column("model_b", sa.Text),
        sa.Column("voted", sa.Double),
        sa.Column("choice", sa.Text),
        sa.Column("score", sa.Double),
    )
    op.create_index("votes_account", "votes", ["account_id", "number"])
    op.create_index("votes_job", "votes", ["job_id", "item"])
    op.create_index("votes_comparison", "votes", ["comparison_id"])
