"""Tables whose rows may be added and never changed: the database itself refuses everything else."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

STATEMENTS: Mapping[str, tuple[str, ...]] = {
    "sqlite": (
        *(
            f"CREATE TRIGGER {{table}}_no_{verb} BEFORE {verb} ON {{table}} "
            "BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed'); END"
            for verb in ("update", "delete")
        ),
        # `REPLACE` deletes without calling the trigger of deletions.
        "CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
        "WHEN EXISTS (SELECT 1 FROM {table} WHERE number = NEW.number) "
        "BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed'); END",
    ),
    "postgresql": (
        "CREATE OR REPLACE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'rows of {table} are never changed'; END $$",
        "CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION {table}_refuse()",
    ),
}


def list_triggers(table: str) -> Mapping[str, str]:
    """Return the statements of a table's triggers in SQLite, by their name."""
    made = (statement.format(table=table) for statement in STATEMENTS["sqlite"])
    return {statement.split()[2]: statement for statement in made}


def protect(connection: Connection, table: str) -> None:
    """Let the database refuse to change or delete rows of a table."""
    for statement in STATEMENTS[connection.dialect.name]:
        connection.execute(text(statement.format(table=table)))
