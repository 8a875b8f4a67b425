"""Chunks of jobs, which several processes share."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("final_state", sa.Text))
    op.create_table(
        "job_chunks",
        sa.Column("job", sa.BigInteger, nullable=False),
        sa.Column("chunk", sa.BigInteger, nullable=False),
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("lease_until", sa.Double),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("running", sa.BigInteger, nullable=False),
        sa.Column("waiting", sa.BigInteger, nullable=False),
        sa.Column("rate", sa.Double),
        sa.Column("ended", sa.Double),
        sa.Column("reason", sa.Text),
        sa.PrimaryKeyConstraint("job", "chunk", name="job_chunks_key"),
        sqlite_with_rowid=False,
    )
    is_open = sa.text("ended IS NULL")
    op.create_index("job_chunks_open", "job_chunks", ["job", "chunk"], sqlite_where=is_open, postgresql_where=is_open)
