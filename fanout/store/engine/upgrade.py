"""The tables brought to what this version of Fanout knows, or refused where a newer one wrote them."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table

from fanout.store.engine.database import Database

HEAD = "0004"
"""The newest of `migrations/versions`. Known here so that Alembic, 0.1 s to import, is needed only where there is work."""
MIGRATIONS = Path(__file__).parents[1] / "migrations"
VERSIONS = "alembic_version"


def upgrade(connection: Connection, database: Database) -> None:
    """Applies the migrations that are missing, in the transaction that is open.

    Raises:
        ConfigError: the tables are newer than this version of Fanout, or not ours.
    """
    database.lock_schema(connection)
    version = _version(connection)
    if version == HEAD:
        return
    if version is not None and version.isdecimal() and version > HEAD:
        sentence = f"a newer Fanout wrote it (its tables have version {version}, this one knows up to {HEAD})"
        raise database.to_config_error(f"{sentence}; upgrade Fanout, or name another place")
    _migrate(connection, database, version)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSIONS):
        return None
    found: str | None = connection.scalar(select(column("version_num")).select_from(table(VERSIONS)))
    return found


def _migrate(connection: Connection, database: Database, version: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        if version is not None:
            ScriptDirectory.from_config(config).get_revision(version)
        command.upgrade(config, "head")
    except CommandError as error:
        raise database.to_config_error(f"its tables have version `{version}`, which is none of Fanout's") from error
