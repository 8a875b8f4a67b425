"""Money and decisions of jobs that several processes run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_table(
        "job_money",
        sa.Column("job", sa.BigInteger, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("recorded_usd", sa.Double, nullable=False),
        sa.Column("open_usd", sa.Double, nullable=False),
        sa.Column("held_usd", sa.Double, nullable=False),
        sa.Column("wanted_usd", sa.Double, nullable=False),
        sa.Column("lease_until", sa.Double),
        sa.PrimaryKeyConstraint("job", "holder", name="job_money_key"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "job_watches",
        sa.Column("job", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("lease_until", sa.Double, nullable=False),
        sa.Column("reach", sa.BigInteger, nullable=False),
        sa.Column("dropped", sa.Text, nullable=False),
        sa.Column("decision", sa.Text),
    )
