"""Texts as users give them: what editors and shells add at their ends is no part of them."""

from __future__ import annotations

from pathlib import Path

BYTE_ORDER_MARK = "\ufeff"


def trim(text: str) -> str:
    """Return a text without a byte order mark before it and line breaks behind it."""
    return text.removeprefix(BYTE_ORDER_MARK).rstrip("\r\n")


def read_trimmed(path: Path) -> str:
    """Return the text of a file, trimmed; line ends within it stay what they are.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    # Not `read_text`, which would turn every line end into a line feed.
    return trim(path.read_bytes().decode())


def trim_value(text: str) -> str:
    """Return a value, such as a key, without the white space around it either."""
    return text.strip().removeprefix(BYTE_ORDER_MARK).strip()
