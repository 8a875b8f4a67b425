"""Text that every database can hold: PostgreSQL refuses NUL, and no database takes half a character.

Long texts are stored once, in a table of their own, under their digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from sqlalchemy import Dialect, Text
from sqlalchemy.types import TypeDecorator

MAX_NAME_BYTES = 512
"""All columns of a PostgreSQL key together may have 2,704 bytes."""
REPLACEMENT = "\ufffd"
"""In the place of a NUL."""
MAX_INLINE_CHARS = 1024
"""The longest text that is kept in its own row."""


class StorableText(TypeDecorator[str]):
    """A column of text that takes any value: what is written to it, or compared with it, is cleaned first."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else clean_text(value)


def clean_name(name: str) -> str:
    """Return a name as every database can hold it, cut to `MAX_NAME_BYTES`."""
    if len(name) * 4 <= MAX_NAME_BYTES:
        return _clean_short_name(name)
    # No character has more than four bytes; one that the cut halves is left out.
    return clean_text(name).encode()[:MAX_NAME_BYTES].decode(errors="ignore")


@lru_cache(maxsize=4096)  # the same few names stand in nearly every row; bounded, because callers choose them
def _clean_short_name(name: str) -> str:
    return clean_text(name)


def clean_text(text: str) -> str:
    """Return a text, however long, without NUL and lone surrogates."""
    text = text.replace("\0", REPLACEMENT)
    return text if text.isascii() else text.encode(errors="replace").decode()


def clean_texts(value: object) -> object:
    """Return what becomes JSON with every text in it cleaned, names of fields too."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        return {clean_text(str(name)): clean_texts(inner) for name, inner in value.items()}
    return [clean_texts(inner) for inner in value] if isinstance(value, list | tuple) else value


def place_text(text: str | None, long_texts: dict[bytes, str]) -> tuple[str | None, bytes | None]:
    """Return a short text itself; put a long one into `long_texts`, and return its digest."""
    if text is None or len(text) <= MAX_INLINE_CHARS:
        return text, None
    text = clean_text(text)
    digest = hashlib.sha256(text.encode()).digest()
    long_texts[digest] = text
    return None, digest
