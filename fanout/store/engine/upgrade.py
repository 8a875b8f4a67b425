"""Upgrades of the tables to what this version of Fanout knows; tables that a newer one wrote are refused."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table

from fanout.store.engine.database import Database

HEAD = "0009"
"""The newest of `migrations/versions`. Declared here so that Alembic, 0.1 s to import, is loaded only if there is work."""
MIGRATIONS = Path(__file__).parents[1] / "migrations"
VERSION_TABLE = "alembic_version"


def has_current_tables(connection: Connection, database: Database) -> bool:
    """Return whether nothing is to be migrated; raise `ConfigError` if the tables are newer."""
    version = _read_version(connection)
    # Versions have four digits, so that they compare as text.
    if version is not None and version.isdecimal() and version > HEAD:
        reason = f"a newer Fanout wrote it (its tables have version {version}, this one knows up to {HEAD})"
        raise database.to_config_error(f"{reason}; upgrade Fanout, or name another location")
    return version == HEAD


def upgrade(connection: Connection, database: Database) -> None:
    """Apply the missing migrations, in the open transaction; raise `ConfigError` if the tables are not Fanout's."""
    database.lock_schema(connection)
    if not has_current_tables(connection, database):  # else another process has just brought them up to date
        _migrate(connection, database, _read_version(connection))


def _read_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.scalar(select(column("version_num")).select_from(table(VERSION_TABLE)))
    return version


def _migrate(connection: Connection, database: Database, version: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))  # configparser interpolates `%`
    try:
        if version is not None:
            ScriptDirectory.from_config(config).get_revision(version)
        command.upgrade(config, "head")
    except CommandError as error:
        raise database.to_config_error(f"its tables have version `{version}`, which is not one of Fanout's") from error
