"""An index of the jobs that have not ended, which every process looks for every two seconds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    is_open = sa.text("state IN ('loading', 'queued', 'running', 'cancelling')")
    op.create_index("jobs_open", "jobs", ["created"], sqlite_where=is_open, postgresql_where=is_open)
