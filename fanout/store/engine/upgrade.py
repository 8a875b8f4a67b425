"""Upgrades of the tables to what this version of Fanout knows; tables that a newer one wrote are refused."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, inspect, select

import fanout.store.jobs.sharing_tables  # noqa: F401 - its tables belong to `metadata` then
from fanout.store.engine.append_only import protect
from fanout.store.engine.database import Database
from fanout.store.key_tables import audit
from fanout.store.tables import PARTIAL_INDEXES, metadata

HEAD = "0022"
"""The newest of `migrations/versions`. Declared here so that Alembic, 0.1 s to import, is loaded only if there is work."""
MIGRATIONS = Path(__file__).parents[1] / "migrations"
VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""As Alembic makes it."""


def has_current_tables(connection: Connection, database: Database) -> bool:
    """Return whether nothing is to be migrated; raise `ConfigError` if the tables are newer."""
    version = _read_version(connection)
    # Versions have four digits, so that they compare as text.
    if version is not None and version.isdecimal() and version > HEAD:
        reason = f"a newer Fanout wrote it (its tables have version {version}, this one knows up to {HEAD})"
        raise database.to_config_error(f"{reason}; upgrade Fanout, or name another location")
    return version == HEAD


def upgrade(connection: Connection, database: Database) -> None:
    """Make the tables, or apply the missing migrations; raise `ConfigError` if the tables are not Fanout's."""
    database.lock_schema(connection)
    if has_current_tables(connection, database):  # another process has just brought them up to date
        return
    version = _read_version(connection)
    if version is None and metadata.tables.keys().isdisjoint(inspect(connection).get_table_names()):
        _create(connection)
    else:
        _migrate(connection, database, version)


def _create(connection: Connection) -> None:
    """Make all tables as they are declared: 20 ms instead of 51 by migrations, and Alembic is not imported (2026-11-27)."""
    for index in (index for table in metadata.tables.values() for index in table.indexes):
        if index.name in PARTIAL_INDEXES:
            index.dialect_kwargs[f"{connection.dialect.name}_where"] = PARTIAL_INDEXES[str(index.name)]
    metadata.create_all(connection, checkfirst=False)
    protect(connection, audit.name)
    VERSION.create(connection)
    connection.execute(VERSION.insert().values(version_num=HEAD))


def _read_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION.name):
        return None
    version: str | None = connection.scalar(select(VERSION.c.version_num))
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
