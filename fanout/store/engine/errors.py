"""Sentences for what databases and their drivers raise."""

from __future__ import annotations

import errno
import sqlite3

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

REFUSED_VALUE_PREFIX = "invalid input for query argument"
"""The start of asyncpg's message about a value it cannot send; the value itself follows."""

AWAY_STATES = frozenset(("08000", "08001", "08003", "08006", "53300", "57P01", "57P02", "57P03"))
"""Of a server that is being started or stopped, has no connection left, or broke one off.
Source: https://www.postgresql.org/docs/17/errcodes-appendix.html"""
AWAY_ERRORS = (ConnectionRefusedError, ConnectionResetError, BrokenPipeError, TimeoutError, FileNotFoundError)
"""Nobody listens on the port or answers there, or the socket's file is missing, which a server deletes when it stops."""
AWAY_NUMBERS = (errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN)


def is_away(error: BaseException | None) -> bool:
    """Return whether a failure to connect to PostgreSQL may end by itself; wrong names and passwords never do."""
    if isinstance(error, DBAPIError):
        return getattr(error.orig, "sqlstate", None) in AWAY_STATES
    # asyncio raises a bare `OSError` for a host of several addresses that failed in different words.
    is_bare = type(error) is OSError and error.errno is None
    return is_bare or isinstance(error, AWAY_ERRORS) or (isinstance(error, OSError) and error.errno in AWAY_NUMBERS)


def describe_error(error: SQLAlchemyError | sqlite3.Error | OSError) -> str:
    """Return the database's own reason for a failure, without the statement and its values."""
    if isinstance(error, DBAPIError):
        reason = str(error.orig).partition("\n")[0]
        return reason.partition(":")[0] if reason.startswith(REFUSED_VALUE_PREFIX) else reason
    if isinstance(error, PoolTimeoutError):
        return "all of its connections are busy"
    if isinstance(error, TimeoutError) and not error.args:
        return "it did not answer in time"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error).partition("\n")[0]
