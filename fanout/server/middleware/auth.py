"""Access: the caller's key for this server, and the caller's own keys for providers."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from aiohttp import web
from pydantic import SecretStr

from fanout.config.api_keys import ApiKey
from fanout.core.errors import Fault, RequestError
from fanout.core.schema import Credential
from fanout.observability import logs
from fanout.server.accounts.callers import CALLER, Caller, check_role, find_caller
from fanout.server.accounts.directory import KeyDirectory
from fanout.server.lifecycle import DISPATCHER
from fanout.server.routes import ROUTES

KEY_HEADERS = ("x-api-key", "api-key")
"""Headers that may hold a key beside `Authorization`: Scale's and Azure's."""
FORWARDING_HEADERS = frozenset(
    (
        *("forwarded", "via", "cdn-loop", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip"),
        *("cf-connecting-ip", "cf-ray", "fastly-client-ip", "fly-client-ip", "x-azure-clientip", "x-appengine-user-ip"),
        *("x-originating-ip", "x-proxyuser-ip"),
    )
)
FORWARDING_PREFIXES = ("x-forwarded", "x-original-forwarded", "x-envoy-", "tailscale-")
"""Headers, in lower case, by which a proxy names its caller or itself, and how others begin.

Source: RFC 7239, RFC 8586, RFC 9110 §7.6.3, and those of nginx, Envoy, Cloudflare, Akamai, Fastly, Fly, Azure, Google
"""
HOST = re.compile(r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[^:\[\]]+))(?::[0-9]*)?", re.IGNORECASE)
"""Source: RFC 9110 §7.2."""
MAX_KEY_CHARS = 4096
ACCOUNT_HEADER = "x-selected-account-id"


class WrongKeyError(web.HTTPUnauthorized):
    """A request shows a key that nobody has."""


def authenticate(request: web.Request, allowed: Sequence[ApiKey], stored: KeyDirectory) -> None:
    """Find the caller of a request by its key, which stands in one of three headers.

    Raises:
        HTTPUnauthorized: there is no key, or nobody has it.
        HTTPForbidden: the role of the key does not allow the request, or the account that it names is not the key's.
    """
    if is_public(request):
        return
    sent = list(_list_keys(request))
    if not sent:
        raise web.HTTPUnauthorized(text="no key: send `Authorization: Bearer <key>`, `x-api-key: <key>` or `api-key: <key>`")
    (_, key), *others = sent
    # Two keys could belong to two callers: whose request it is must not depend on the order in which headers are read.
    if not all(_is_equal(key, other) for _, other in others):
        names = " and ".join(f"`{name}`" for name, _ in sent)
        raise web.HTTPUnauthorized(text=f"{names} hold different keys: send one, or the same in each")
    # All keys are compared, even after a match: the time this takes must not tell which key was nearly right.
    matches = [known for known in allowed if _is_equal(key, known.secret.get_secret_value())]
    if matches:
        caller = Caller(f"environment:{matches[0].account}", "admin", matches[0].account)
    else:
        found = stored.find(key)
        if found is None:
            raise WrongKeyError(text="this key is not known here")
        caller = found
    request[CALLER] = caller
    logs.account.set(caller.account)
    choose_account(request)  # an account in the header must match the key, on every endpoint
    check_role(request, caller)


def _list_keys(request: web.Request) -> Iterator[tuple[str, str]]:
    """Yield every key that a request shows, with the header that holds it; a header may stand there twice."""
    for value in request.headers.getall("Authorization", ()):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer" and (key := token.strip()):
            yield "Authorization", key
    for name in KEY_HEADERS:
        for value in request.headers.getall(name, ()):
            if key := value.strip():
                yield name, key


def is_public(request: web.Request) -> bool:
    """Return whether a request's path needs no key and is served to the last."""
    resource = request.match_info.route.resource  # of a path with parameters; `None` if the method is not allowed
    paths = {request.path, resource.canonical if resource else ""}
    public = request.app[ROUTES].public_paths
    return not public.isdisjoint(paths)


def check_host(request: web.Request) -> None:
    """Refuse a `Host` that is not this machine, and what a proxy has passed on, with `HTTPForbidden`.

    Source: DNS rebinding, https://owasp.org/www-community/attacks/DNS_Rebinding
    """
    # A proxy may send its upstream's name, this machine's, as `Host`, whoever has called it.
    names = request.headers.keys()
    if passed_on := next((name for name in names if _is_of_proxy(name.lower())), None):
        sentence = f"a proxy has passed this request on (`{passed_on}`); set FANOUT_API_KEYS to be called by other machines"
        raise web.HTTPForbidden(text=sentence)
    # Without keys, any web page whose name resolves here could call, and spend the operator's money.
    host = request.headers.get("Host", "")
    if not _is_own(host):
        message = f"the host {host[:100]!a} is not this machine; set FANOUT_API_KEYS to accept requests for other host names"
        raise web.HTTPForbidden(text=message)


def check_origin(request: web.Request, origins: Sequence[str]) -> None:
    """Refuse what a foreign web page sends to change something, with `HTTPForbidden`.

    Without keys, a form of any page that the operator visits could reach this server, and forms need no preflight.

    Source: https://owasp.org/www-community/attacks/csrf
    """
    origin = request.headers.get("Origin")
    if origin is None or request.method in ("GET", "HEAD", "OPTIONS") or "*" in origins or origin in origins:
        return
    if origin.partition("://")[2] != request.headers.get("Host"):
        raise web.HTTPForbidden(text=f"pages of {origin[:100]!a} may not call; FANOUT_CORS_ORIGINS names those that may")


def _is_of_proxy(name: str) -> bool:
    return name in FORWARDING_HEADERS or name.startswith(FORWARDING_PREFIXES)


@lru_cache(maxsize=64)  # bounded: callers choose what they send
def _is_own(host: str) -> bool:
    parts = HOST.fullmatch(host)
    if parts is None:
        return False
    name = str(parts["ipv6"] or parts["name"])
    return name.lower() == "localhost" or name.lower().endswith(".localhost") or is_loopback(name)


def is_loopback(host: str) -> bool:
    """Return whether an address, or the name `localhost`, is a loopback address of this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_caller_credentials(request: web.Request) -> Mapping[str, Credential]:
    """Collect the caller's own keys, by provider: each comes from that provider's header and is used for it alone."""
    found: dict[str, Credential] = {}
    for name, provider in request.app[DISPATCHER].settings.providers.items():
        header = provider.row.key_header
        if header and (key := request.headers.get(header, "").strip()):
            # Refused: ignoring it would make the call with the server's key, at the operator's cost.
            if len(key) > MAX_KEY_CHARS:
                raise RequestError([Fault(header, f"has {len(key)} characters; a key has at most {MAX_KEY_CHARS}")])
            # The digest stands for the key wherever calls are distinguished by it, such as in limits.
            found[name] = Credential(SecretStr(key), hashlib.sha256(_to_bytes(key)).hexdigest()[:16])
    return found


def refuse_caller_credentials(request: web.Request) -> None:
    """Refuse a caller's own keys for work that outlives the request."""
    # Callers' keys are stored nowhere, so a job could only use the server's keys, at the operator's cost.
    providers = request.app[DISPATCHER].settings.providers
    message = "is not allowed here: your own key serves one request, and a job outlives the request"
    if faults := [Fault(str(providers[name].row.key_header), message) for name in find_caller_credentials(request)]:
        raise RequestError(faults)


def find_account(request: web.Request) -> str | None:
    """Return the caller's account, which limits the data they see. `None` if there are no keys: no limit."""
    return find_caller(request).account


def choose_account(request: web.Request, named: str | None = None) -> str | None:
    """Return the account that a request is for: that of its key, or without keys the account that the request names.

    Args:
        request: may name an account in `x-selected-account-id`.
        named: the account in its body or query, which overrides the header; `None` if absent.

    Raises:
        HTTPForbidden: the request names an account that is not that of its key.
    """
    given = request.headers.get(ACCOUNT_HEADER, "")[:256] or None if named is None else named
    own = find_account(request)
    if own is not None and given not in (None, own):
        # Refused: silently counting the usage for either account would surprise the owner of the other.
        raise web.HTTPForbidden(text=f"the account {given!a:.80} is not that of this key; name `{own}`, or no account")
    return own or given


def _is_equal(one: str, other: str) -> bool:
    return hmac.compare_digest(_to_bytes(one), _to_bytes(other))


def _to_bytes(header: str) -> bytes:
    # aiohttp decodes what is not UTF-8 into lone surrogates, which a strict encoder would refuse.
    return header.encode(errors="surrogateescape")
