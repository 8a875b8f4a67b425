"""Sentences for what databases and their drivers raise."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

REFUSED_VALUE_PREFIX = "invalid input for query argument"
"""The start of asyncpg's message about a value it cannot send; the value itself follows."""


def describe_error(error: SQLAlchemyError | OSError) -> str:
    """Return the database's own reason for a failure, without the statement and its values."""
    if isinstance(error, DBAPIError):
        reason = str(error.orig).partition("\n")[0]
        return reason.partition(":")[0] if reason.startswith(REFUSED_VALUE_PREFIX) else reason
    if isinstance(error, PoolTimeoutError):
        return "all of its connections are busy"
    if isinstance(error, TimeoutError) and not error.args:
        return "it did not answer in time"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error).partition("\n")[0]
