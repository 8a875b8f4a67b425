"""Callers' keys in a store: created, changed, rotated, revoked, by the server's endpoints and by `fanout keys`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import NoReturn

from fanout.core.errors import Fault, RequestError
from fanout.core.json_text import JsonObject
from fanout.requests.keys import LIMIT_NAMES, KeyBody, KeyChangeBody, dump_limits, load_limits
from fanout.store.keys.key_store import MAX_KEYS, KeyChange, KeyRow, KeyStore
from fanout.store.keys.secrets import SecretRow, make_secret


async def create_key(keys: KeyStore, body: KeyBody, actor: str) -> tuple[KeyRow, str]:
    """Store a new key; return it with its secret, which nobody can read again.

    Raises:
        RequestError: there are as many as a server can hold.
    """
    now, key_id = time.time(), f"key_{uuid.uuid4().hex[:24]}"
    limits, account_id = dump_limits(body.model_dump()), body.account_id or key_id
    key = KeyRow(key_id, now, actor, body.name, account_id, body.role, limits, body.expires, None)
    secret, row = make_secret(key_id, now)
    if not await keys.create(key, row, {"prefix": row.prefix, "account_id": account_id, **_describe(body)}):
        raise RequestError([Fault("", f"there are {MAX_KEYS:,} keys, as many as may be: revoke one first", "too_many_keys")])
    return key, secret


async def change_key(keys: KeyStore, key_id: str, body: KeyChangeBody, actor: str) -> KeyRow:
    """Change what a body names, and return the key; raise `RequestError` if there is none, or it was revoked."""
    key = await find_good_key(keys, key_id)
    given = {name: value for name, value in body.model_dump().items() if name in body.model_fields_set}
    values = KeyChange(limits=dump_limits({**load_limits(key.limits).model_dump(), **given}))
    if body.name is not None:
        values["name"] = body.name
    if body.role is not None:
        values["role"] = body.role
    if "expires" in given:
        values["expires"] = body.expires
    if given and not await keys.change(key_id, values, actor, _describe(body)):
        _refuse_revoked(key_id)
    return await find_good_key(keys, key_id)


async def rotate_key(keys: KeyStore, key_id: str, grace_s: float, actor: str) -> tuple[KeyRow, str]:
    """Give a key a new secret, and return both; raise `RequestError` if there is none, or it was revoked."""
    key = await find_good_key(keys, key_id)
    secret, row = make_secret(key_id, time.time())
    if not await keys.rotate(row, grace_s, actor):
        _refuse_revoked(key_id)
    return key, secret


async def revoke_key(keys: KeyStore, key_id: str, actor: str) -> KeyRow:
    """Revoke a key, and return it; one that was revoked before stays as it is. Raise `RequestError` if there is none."""
    await keys.revoke(key_id, actor)
    return await find_key(keys, key_id)


async def find_key(keys: KeyStore, key_id: str) -> KeyRow:
    """Return a key by its id; raise `RequestError` if there is none."""
    if key := await keys.find(key_id):
        return key
    raise RequestError([Fault("key_id", f"no key `{key_id:.80}`", "key_not_found")])


async def find_good_key(keys: KeyStore, key_id: str) -> KeyRow:
    """Return a key that was not revoked; raise `RequestError` if there is none."""
    key = await find_key(keys, key_id)
    if key.revoked is not None:
        _refuse_revoked(key_id)
    return key


async def list_prefixes(keys: KeyStore, found: Sequence[KeyRow]) -> Mapping[str, Sequence[SecretRow]]:
    """Return by key what is stored of its secrets, the newest first."""
    prefixes: dict[str, list[SecretRow]] = {key.id: [] for key in found}
    for secret in await keys.list_secrets(list(prefixes)):
        prefixes[secret.key_id].append(secret)
    return prefixes


def _describe(body: KeyBody | KeyChangeBody) -> JsonObject:
    """Return what a body sets, for the record of changes."""
    known = {"name", "role", "expires", *LIMIT_NAMES}
    return {name: value for name, value in body.model_dump().items() if name in known & body.model_fields_set}


def _refuse_revoked(key_id: str) -> NoReturn:
    raise RequestError([Fault("key_id", f"`{key_id}` was revoked, which is final; create another key", "wrong_state")])
