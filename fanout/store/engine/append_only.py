"""Tables whose rows may be added and never changed: the database itself refuses everything else."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

STATEMENTS: Mapping[str, tuple[str, ...]] = {
    "sqlite": tuple(
        f"CREATE TRIGGER {{table}}_no_{verb} BEFORE {verb} ON {{table}} "
        "BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed'); END"
        for verb in ("update", "delete")
    ),
    "postgresql": (
        "CREATE OR REPLACE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'rows of {table} are never changed'; END $$",
        "CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION {table}_refuse()",
    ),
}


def protect(connection: Connection, table: str) -> None:
    """Let the database refuse to change or delete rows of a table."""
    for statement in STATEMENTS[connection.dialect.name]:
        connection.execute(text(statement.format(table=table)))
