"""Keys as their holders send them, `fk-<prefix>-<secret>`, and what is stored of them.

The secret has 256 random bits, so that a fast hash is as good as a slow one: nobody can try them all.
"""

from __future__ import annotations

import hmac
import secrets
import string
from typing import NamedTuple

MARK = "fk"
"""Beginning of every key, by which scanners of source code find one that was published."""
PREFIX_CHARS = 12
PREFIX_ALPHABET = string.ascii_lowercase + string.digits
SECRET_BYTES = 32
SALT_BYTES = 16
UNKNOWN_SALT = secrets.token_bytes(SALT_BYTES)
"""By which a key is hashed whose prefix nobody has, so that it takes as long."""


class SecretRow(NamedTuple):
    """The stored part of a key: the columns of its table, in their order."""

    prefix: str
    key_id: str
    salt: bytes
    digest: bytes
    created: float
    expires: float | None

    def is_good(self, now: float) -> bool:
        """Return whether it was not replaced by another one."""
        return self.expires is None or now < self.expires


def make_secret(key_id: str, now: float) -> tuple[str, SecretRow]:
    """Return a new key, which is shown once, and what is stored of it."""
    prefix = "".join(secrets.choice(PREFIX_ALPHABET) for _ in range(PREFIX_CHARS))
    secret, salt = secrets.token_urlsafe(SECRET_BYTES), secrets.token_bytes(SALT_BYTES)
    return f"{MARK}-{prefix}-{secret}", SecretRow(prefix, key_id, salt, digest_secret(salt, secret), now, None)


def split_key(key: str) -> tuple[str, str] | None:
    """Return prefix and secret of a key; `None`: it is none of these."""
    mark, _, rest = key.partition("-")
    prefix, dash, secret = rest.partition("-")
    return (prefix, secret) if mark == MARK and dash and len(prefix) == PREFIX_CHARS else None


def digest_secret(salt: bytes, secret: str) -> bytes:
    """Return what is stored of a secret."""
    return hmac.digest(salt, secret.encode(errors="surrogateescape"), "sha256")


def is_secret_of(row: SecretRow | None, secret: str) -> bool:
    """Return whether a secret is the one of a row, in the same time for every secret, and for no row."""
    digest = digest_secret(row.salt if row else UNKNOWN_SALT, secret)
    return hmac.compare_digest(digest, row.digest if row else UNKNOWN_SALT) and row is not None
