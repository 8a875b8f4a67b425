"""Texts that every database takes. PostgreSQL's hold no NUL, and no database's holds half a character."""

from __future__ import annotations

from sqlalchemy import Dialect, Text
from sqlalchemy.types import TypeDecorator

MAX_NAME_BYTES = 512
"""Bytes. PostgreSQL's keys hold 2,704 together."""


class StorableText(TypeDecorator[str]):
    """A column of text that is never refused: what is written into it, or looked for in it, is made whole."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else clean_text(value)


def clean_name(name: str) -> str:
    """A name that every database takes: whole, and not too long."""
    name = clean_text(name)
    return name if len(name) * 4 <= MAX_NAME_BYTES else name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def clean_text(text: str) -> str:
    """A text that every database takes, however long: no NUL, no halves of characters."""
    text = text.replace("\0", "\ufffd")
    return text if text.isascii() else text.encode(errors="replace").decode()
