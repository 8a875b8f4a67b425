"""Limits that processes share."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.create_table(
        "shared_limits",
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("written", sa.Double, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
    )
