"""Who may call, and with whose key upstream."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from functools import lru_cache

from aiohttp import web
from pydantic import SecretStr

from fanout.core.errors import Fault, RequestError
from fanout.core.schema import Credential
from fanout.server.lifecycle import DISPATCHER

PUBLIC_PATHS = frozenset({"/livez", "/readyz", "/docs", "/openapi.json"})
MAX_KEY_CHARS = 4096


def authenticate(request: web.Request, allowed: Sequence[SecretStr]) -> None:
    """Raises HTTPUnauthorized unless the caller shows one of the keys, as Bearer or in `x-api-key`; both must agree."""
    if not allowed or request.path in PUBLIC_PATHS:
        return
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    plain = request.headers.get("x-api-key", "").strip()
    if bearer and plain and not _equal(bearer, plain):
        raise web.HTTPUnauthorized(text="`Authorization` and `x-api-key` hold different keys: send one, or the same in both")
    shown = bearer or plain
    if not shown:
        raise web.HTTPUnauthorized(text="no key: send `Authorization: Bearer <key>` or `x-api-key: <key>`")
    # No early end: how long this takes must not tell which key was nearly right.
    if not sum([_equal(shown, key.get_secret_value()) for key in allowed]):
        raise web.HTTPUnauthorized(text="this key is not known here")


def check_host(request: web.Request) -> None:
    """On loopback without keys, only a page of this machine may call: a name that resolves here would let any page in.

    Source: DNS rebinding, https://owasp.org/www-community/attacks/DNS_Rebinding
    """
    host = request.headers.get("Host", "")
    if not _is_own(host):
        raise web.HTTPForbidden(
            text=f"the host {host[:100]!a} is not this machine; set FANOUT_API_KEYS to be called by other names"
        )


@lru_cache(maxsize=64)
def _is_own(host: str) -> bool:
    name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name.lower() == "localhost" or name.lower().endswith(".localhost") or is_loopback(name)


def is_loopback(host: str) -> bool:
    """Whether an address (or the name `localhost`) is this machine's own."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def caller_credentials(request: web.Request) -> Mapping[str, Credential]:
    """The keys that a caller brought for providers, by provider: each from that provider's own header, for it alone.

    Raises:
        RequestError: one is too long to be a key. It is not passed over: the call would be made with the server's key.
    """
    found: dict[str, Credential] = {}
    for name, provider in request.app[DISPATCHER].settings.providers.items():
        header = provider.row.key_header
        if header and (key := request.headers.get(header, "").strip()):
            if len(key) > MAX_KEY_CHARS:
                raise RequestError([Fault(header, f"has {len(key)} characters; a key has at most {MAX_KEY_CHARS}")])
            found[name] = Credential(SecretStr(key), hashlib.sha256(_bytes(key)).hexdigest()[:16])
    return found


def account_id(request: web.Request) -> str | None:
    """The account that the caller names in `x-selected-account-id`, for which usage is counted."""
    return request.headers.get("x-selected-account-id", "")[:256] or None


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(_bytes(one), _bytes(other))


def _bytes(header: str) -> bytes:
    """As it came: what is not UTF-8 stands as lone surrogates in what aiohttp makes of it."""
    return header.encode(errors="surrogateescape")
