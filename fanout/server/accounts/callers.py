"""The caller of a request: by which key, for which account, and in which role."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from aiohttp import web

from fanout.requests.keys import KeyLimits
from fanout.store.keys.key_store import Role

READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CALLING_ROLES = frozenset({"admin", "user"})
"""Roles that call models."""
METRICS_PATH = "/metrics"
OWN_KEY_PATH = "/v1/keys/self"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever has sent a request."""

    actor: str
    """As the audit table names it: the id of a stored key, `environment:ACCOUNT`, or `local`."""
    role: Role
    account: str | None = None
    """Whose data it sees; `None`: everything, on a server without keys."""
    key_id: str | None = None
    """Of a key in the store."""
    limits: KeyLimits = field(default_factory=KeyLimits)


LOCAL = Caller("local", "admin")
"""A caller of a server without keys: a user of its machine."""
CALLER = web.RequestKey("caller", Caller)


def find_caller(request: web.Request) -> Caller:
    """Return the caller of a request."""
    caller: Caller = request.get(CALLER, LOCAL)
    return caller


def require_admin(request: web.Request) -> Caller:
    """Return the caller of a request; raise `HTTPForbidden` unless they are an administrator."""
    caller = find_caller(request)
    if caller.role != "admin":
        _refuse(caller, "this is for administrators")
    return caller


def check_role(request: web.Request, caller: Caller) -> None:
    """Refuse what the role of a caller does not allow, with `HTTPForbidden`; administrators' endpoints ask `require_admin`."""
    if caller.role == "admin" or request.path == OWN_KEY_PATH:
        return
    if caller.role == "metrics" and request.path != METRICS_PATH:
        _refuse(caller, f"it reads `{METRICS_PATH}` alone")
    if caller.role == "viewer" and request.method not in READING_METHODS:
        _refuse(caller, "it may only read")
    if caller.role != "metrics" and request.path == METRICS_PATH:  # these are of all accounts together
        _refuse(caller, f"`{METRICS_PATH}` is for the roles `admin` and `metrics`")


def _refuse(caller: Caller, why: str) -> NoReturn:
    raise web.HTTPForbidden(text=f"this key has the role `{caller.role}`: {why}")
