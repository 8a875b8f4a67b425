"""Fusions in the history: whose answers an answer was made of, and which calls were made for a fusion alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("answers", sa.Column("is_member", sa.Boolean))
    op.add_column("answers", sa.Column("fusion", sa.Text))
