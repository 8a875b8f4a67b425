"""The location of a database: the value of FANOUT_STORE, parsed and checked."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from fanout.core.errors import ConfigError, Fault

MEMORY, OFF = ":memory:", "off"
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
ALLOWED_LOCATIONS = "a file's path, `sqlite:///…`, `postgresql://…`, `:memory:` or `off`"
MISTYPED_URL = re.compile(r"(sqlite|postgres(ql)?)(\+\w*)?(:(?!//)|//)", re.IGNORECASE)
"""The start of a URL that would be taken for a path, and shown with its password."""
KEYWORDS = re.compile(r"(^|\s)(host|hostaddr|dbname|user|password|service)\s*=", re.IGNORECASE)
"""A word of libpq's connection strings, `host=… password=…`, which would be taken for a path and shown with its password."""
BOOLEANS = {"true": True, "yes": True, "on": True, "y": True, "t": True, "1": True}
BOOLEANS |= {"false": False, "no": False, "off": False, "n": False, "f": False, "0": False}
"""What SQLAlchemy takes for the options of a SQLite URL. Source: its `util.asbool`."""
URL_OPTIONS = ("host", "port", "ssl", "sslmode")
"""The options that a PostgreSQL URL may have after its `?`."""


def parse_location(location: str) -> URL:
    """Return the URL of a location, with the driver to use; raise `ConfigError` if it is not valid."""
    # No message quotes the location: it may hold a password.
    if MISTYPED_URL.match(location):
        raise _fault(f"is not a valid URL; allowed: {ALLOWED_LOCATIONS}")
    if "://" not in location:
        if KEYWORDS.search(location):
            raise _fault(f"is a connection string of keywords, which is written as a URL here; allowed: {ALLOWED_LOCATIONS}")
        path = location if location == MEMORY else str(Path(location).expanduser().absolute())
        return URL.create(DRIVERS["sqlite"], database=path)
    # What follows an `@` that belongs to the password would be read as the host, and shown.
    if location.count("@") > 1 and not location.startswith("sqlite"):
        raise _fault("has more than one `@`: within a user or password it is written `%40`")
    try:
        url = make_url(location)
    except (ArgumentError, ValueError):  # ValueError: the port is not a number
        raise _fault(f"is not a valid URL; allowed: {ALLOWED_LOCATIONS}") from None
    backend = url.get_backend_name()
    if backend not in DRIVERS:
        raise _fault(f"`{backend}` is not known; allowed: {ALLOWED_LOCATIONS}")
    if backend != "sqlite":
        if unknown := sorted(set(url.query) - set(URL_OPTIONS)):
            raise _fault(f"`{unknown[0]}` is not an option of a PostgreSQL URL; allowed after `?`: {', '.join(URL_OPTIONS)}")
        # `sslmode` is libpq's name of the option, which people copy; the driver calls it `ssl`.
        url = url.set(query={"ssl" if name == "sslmode" else name: value for name, value in url.query.items()})
    elif str(url.query.get("uri", "true")).lower() not in BOOLEANS:
        raise _fault("`uri` is neither `true` nor `false`")
    return url.set(drivername=DRIVERS[backend], database=url.database or (MEMORY if backend == "sqlite" else None))


def name_database(url: URL) -> str:
    """Return the name of a database in messages and log lines: a file's path, or host and database alone."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return URL.create(url.get_backend_name(), host=url.host, port=url.port, database=url.database).render_as_string()


def find_file(url: URL) -> Path | None:
    """Return the file that SQLite would open and could create; `None` where there is none."""
    name = url.database or MEMORY
    if url.get_backend_name() != "sqlite":
        return None
    if name.startswith("file:") and BOOLEANS[str(url.query.get("uri", "false")).lower()]:
        # Source: https://www.sqlite.org/uri.html, and https://www.sqlite.org/vfs.html for the names that stand for files
        if url.query.get("mode", "rwc") != "rwc" or not str(url.query.get("vfs", "unix")).startswith("unix"):
            return None
        name = unquote(urlsplit(name).path) or MEMORY
    return None if name == MEMORY else Path(name)


def create_file(location: str) -> None:
    """Create the database file and its folders, readable by their owner only, unless they exist or none is needed."""
    path = find_file(parse_location(location))
    if path is None:
        return
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # SQLite would create the file readable by everybody, and gives its WAL the same mode. The path may be a link to a file
    # that does not exist yet. One that exists is not even opened: closing it would free this process's locks on it.
    with suppress(FileExistsError):
        os.close(os.open(path.resolve(), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def as_read_only(url: URL) -> URL:
    """Return the URL of a file that this process can only read so that SQLite opens it; any other as it is."""
    path = find_file(url)
    if path is None or not path.exists() or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        return url
    # Without a folder for its shared memory SQLite opens only what nobody changes; with a WAL somebody might.
    is_fixed = not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()
    query = {"mode": "ro", "uri": "true"} | ({"immutable": "1"} if is_fixed else {})
    return url.set(database=f"file:{quote(str(path))}", query=query)


def to_config_error(name: str, reason: str) -> ConfigError:
    """Return the error that says why the database of that name cannot be used, and what may be set instead."""
    return _fault(f"`{name}` cannot be used: {reason}; allowed: {ALLOWED_LOCATIONS}")


def _fault(message: str) -> ConfigError:
    return ConfigError("environment", [Fault("FANOUT_STORE", message)])
