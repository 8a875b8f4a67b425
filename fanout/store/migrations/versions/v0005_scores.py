"""Scores of jobs' answers, and the scorers that gave them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "scorers",
        sa.Column("job", sa.BigInteger, nullable=False),
        sa.Column("scorer", sa.BigInteger, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("declaration", sa.Text, nullable=False),
        sa.Column("is_bounded", sa.Boolean, nullable=False),
        sa.Column("is_higher_better", sa.Boolean, nullable=False),
        sa.Column("declared", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("job", "scorer", name="scorers_key"),
        sa.UniqueConstraint("job", "label", "version", name="scorers_version"),
    )
    op.create_table(
        "scores",
        sa.Column("job", sa.BigInteger, nullable=False),
        sa.Column("item", sa.BigInteger, nullable=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("repeat", sa.BigInteger, nullable=False),
        sa.Column("scorer", sa.BigInteger, nullable=False),
        sa.Column("value", sa.Double),
        sa.Column("explanation", sa.Text),
        sa.PrimaryKeyConstraint("job", "item", "entry", "repeat", "scorer", name="scores_key"),
        sqlite_with_rowid=False,
    )
