"""Copies of a store that is a SQLite file, whole and sound, also while servers write: backups, and their way back."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL

from fanout.core.errors import ConfigError, Fault, StoreError
from fanout.store.engine.append_only import list_triggers
from fanout.store.engine.connections import LOCK_TIMEOUT_MS
from fanout.store.engine.location import OFF, as_read_only, find_file, name_database, parse_location
from fanout.store.engine.upgrade import HEAD

OTHER_FILES = ("-wal", "-shm", "-journal")
"""Ends of the names of files that SQLite keeps beside a database."""
VERSION = re.compile(r"[0-9]{4}")


def require_file(location: str) -> Path:
    """Return the file of a store; raise `ConfigError` if it is in none."""
    url = parse_location(location)
    path = None if location == OFF else find_file(url)
    if path is None:
        sentence = f"is `{location}`: nothing is kept, so there is nothing to copy"
        if url.get_backend_name() != "sqlite":
            sentence = (
                f"is `{name_database(url)}`: PostgreSQL has programs of its own, `pg_dump --format=custom` and `pg_restore`"
            )
        raise ConfigError("environment", [Fault("FANOUT_STORE", sentence)])
    return path


def copy_store(source: Path, target: Path) -> int:
    """Copy a store, as it is at one moment, to a file that does not exist yet; return its bytes.

    The file appears once it is whole and sound, can be read by its owner alone, and has no others beside it.

    Raises:
        ConfigError: the source is no store of this version or of one before.
        StoreError: the file exists, or a file cannot be read or written.
    """
    target = target.absolute()
    if taken := next((path for path in _list_files(target) if path.exists()), None):
        raise StoreError(f"`{taken}` exists: a copy replaces nothing; name another file, or move it away")
    part = target.with_name(f".{target.name}.part-{os.getpid()}")
    try:
        with _explain(source), closing(_open(source)) as reading:
            _check_schema(source, reading)
            _check_version(source, reading)
            with _create(part) as writing:
                reading.backup(writing)
                # Of the copy: a disk's error shows up here, and not on the day on which the copy is needed.
                _check(part, writing)
        _settle(part, target)
        return target.stat().st_size
    except OSError as error:
        raise StoreError(f"`{target}` cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            for path in _list_files(part):
                path.unlink(missing_ok=True)


def _list_files(path: Path) -> list[Path]:
    return [path, *(path.with_name(path.name + end) for end in OTHER_FILES)]


def _open(source: Path) -> sqlite3.Connection:
    if not source.exists():  # SQLite would make an empty one
        raise StoreError(f"`{source}` does not exist")
    name = str(as_read_only(URL.create("sqlite", database=str(source))).database)
    # Where it can be written it is no URL, so that SQLite may make the shared memory that it reads a WAL with.
    return sqlite3.connect(name, timeout=LOCK_TIMEOUT_MS / 1000, uri=name.startswith("file:"))


@contextmanager
def _create(part: Path) -> Iterator[sqlite3.Connection]:
    part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    with closing(sqlite3.connect(part)) as connection:
        yield connection


@contextmanager
def _explain(source: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"`{source}` cannot be copied: {error}") from error


def _check_schema(source: Path, reading: sqlite3.Connection) -> None:
    """Refuse what would run when the file is read or written later, and a record of changes that could be changed."""
    reading.execute("PRAGMA trusted_schema=OFF")
    schema = list(reading.execute("SELECT type, name, sql FROM sqlite_master"))
    programs = {(kind, name): sql for kind, name, sql in schema if kind not in ("table", "index")}
    own = {("trigger", name): sql for name, sql in list_triggers("audit").items()}
    needed = own.keys() - {("trigger", "audit_no_replace")}  # which versions before 0012 have not
    has_audit = any((kind, name) == ("table", "audit") for kind, name, _ in schema)
    is_own = programs.items() <= own.items() and (not has_audit or needed <= programs.keys())
    if not is_own or any(str(sql).upper().startswith("CREATE VIRTUAL") for _, _, sql in schema):
        sentence = f"`{source}` is no store as Fanout makes it: its triggers, views or virtual tables are others"
        raise ConfigError("store", [Fault("", sentence)])


def _check_version(source: Path, reading: sqlite3.Connection) -> None:
    version = None
    with suppress(sqlite3.OperationalError):
        version = reading.execute("SELECT max(version_num) FROM alembic_version").fetchone()[0]
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        raise ConfigError("store", [Fault("", f"`{source}` is no store of Fanout's")])
    if version > HEAD:
        reason = f"is of a newer Fanout (version {version}; known: {HEAD})"
        raise ConfigError("store", [Fault("", f"`{source}` {reason}")])


def _check(part: Path, writing: sqlite3.Connection) -> None:
    found = writing.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreError(f"the copy is not sound: {found}")
    # One file, complete in itself, wherever it is taken to; a server that opens it makes it a WAL again.
    writing.execute("PRAGMA journal_mode=DELETE")


def _settle(part: Path, target: Path) -> None:
    """Give a finished copy its name, once it is on the disk."""
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        descriptor = os.open(part, os.O_RDWR)
        try:
            if os.geteuid() == 0:  # put back by root, it is nevertheless the server's
                owner = os.fstat(folder)
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.link(part, target)  # not renamed: that would replace what has come meanwhile
        os.fsync(folder)
    finally:
        os.close(folder)
