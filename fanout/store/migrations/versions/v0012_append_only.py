"""A trigger against `REPLACE`, by which SQLite changes rows that may not be changed."""

from __future__ import annotations

from alembic import op

from fanout.store.engine.append_only import list_triggers

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER IF EXISTS audit_no_replace")
        op.execute(list_triggers("audit")["audit_no_replace"])
