"""Batches of jobs at providers' own batch APIs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "economy_batches",
        sa.Column("token", sa.Text, primary_key=True),
        sa.Column("job", sa.BigInteger, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("submitted", sa.Double, nullable=False),
        sa.Column("vendor_id", sa.Text),
        sa.Column("units", sa.Text, nullable=False),
        sa.Index("economy_batches_job", "job"),
    )
