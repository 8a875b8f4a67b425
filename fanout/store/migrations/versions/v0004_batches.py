"""OpenAI's batches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("validated", sa.Double),
        sa.Column("errors", sa.Text),
        sa.Column("cancelling", sa.Double),
        sa.Column("settled", sa.Double),
        sa.Column("output_file", sa.Text),
        sa.Column("error_file", sa.Text),
    )
    unsettled = sa.text("settled IS NULL")
    op.create_index("batches_unsettled", "batches", ["created"], sqlite_where=unsettled, postgresql_where=unsettled)
    op.create_index("files_created", "files", ["created", "id"])
