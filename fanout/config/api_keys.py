"""Callers' keys, each with the account that it belongs to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from fanout.config.trusted_files import explain_unreadable, read_trusted_file
from fanout.core.given_text import trim_value

MIN_KEY_CHARS = 16
"""Shorter keys can be found by trying."""
ACCOUNT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, and the account whose files, jobs, history and usage it opens. Several keys may belong to one account."""

    account: str
    secret: SecretStr


def parse_keys(entries: Iterable[tuple[str, str]]) -> tuple[ApiKey, ...]:
    """Return the keys of entries, `name:key` or `key`.

    Args:
        entries: the place of each, for messages, and its text.

    Raises:
        ValueError: with the first entry at fault by its place; what it holds is secret and not repeated.
    """
    keys: dict[str, ApiKey] = {}
    for place, entry in entries:
        name, colon, secret = entry.partition(":") if ":" in entry else ("", "", entry)
        name, secret = name.strip(), secret.strip()
        if colon and not ACCOUNT_NAME.fullmatch(name):
            raise ValueError(f"{place}: the account before `:` is 1 to 64 letters, digits, `.`, `_`, `@` and `-`")
        if len(secret) < MIN_KEY_CHARS:
            raise ValueError(f"{place}: the key has {len(secret)} characters; at least {MIN_KEY_CHARS} are required")
        key = ApiKey(name or _name_account(secret), SecretStr(secret))
        if keys.setdefault(secret, key) != key:
            raise ValueError(f"{place}: the same key belongs to `{keys[secret].account}` already")
    # An operator who set the variable means to close the door: an empty one must not leave it open.
    if not keys:
        raise ValueError("holds no key: to let this machine call without one, leave it unset")
    return tuple(keys.values())


def _name_account(secret: str) -> str:
    # Stable over restarts, and the key cannot be found from it.
    return f"key-{hashlib.sha256(secret.encode()).hexdigest()[:12]}"


def split_keys(value: object) -> object:
    """Parse the value of a variable, entries separated by commas; leave everything else to be refused."""
    if not isinstance(value, str):
        return value
    parts = [part for text in value.split(",") if (part := trim_value(text))]
    return parse_keys((f"entry {number}", part) for number, part in enumerate(parts, 1))


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read a file of entries, one on a line; `#` begins a comment line. Raises `ValueError` with the fault."""
    try:
        text = read_trusted_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"cannot be read: it is not UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise ValueError(explain_unreadable(error)) from None
    lines = [line.strip() for line in text.splitlines()]
    return parse_keys((f"line {number}", line) for number, line in enumerate(lines, 1) if line and not line.startswith("#"))


def check_key_file(path: Path) -> Path:
    """Return the path of a file of keys, or raise `ValueError` with its fault."""
    read_keys(path)
    return path
