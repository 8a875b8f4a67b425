"""Run by Alembic for every migration, on the connection that `upgrade.py` hands over."""

from __future__ import annotations

from alembic import context

from fanout.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
