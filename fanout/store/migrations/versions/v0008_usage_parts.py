"""Parts of a comparison's usage: tokens that went into a provider's cache, and those of the reasoning."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("comparisons", sa.Column("cache_write_tokens", sa.BigInteger))
    op.add_column("comparisons", sa.Column("reasoning_tokens", sa.BigInteger))
