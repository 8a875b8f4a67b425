"""CORS: which origins' web pages may call, and what they may read of an answer.

Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

ALLOWED_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, Api-Key, X-Api-Key, X-OpenAI-Api-Key, X-Request-Id, X-Selected-Account-Id"
)
RATE_HEADERS = ", ".join(
    f"x-ratelimit-{part}-{of}" for of in ("requests", "tokens") for part in ("limit", "remaining", "reset")
)
EXPOSED_HEADERS = f"x-request-id, x-comparison-id, x-should-retry, Idempotent-Replayed, Retry-After, {RATE_HEADERS}"


def is_preflight(request: web.Request) -> bool:
    """Tell if a browser asks for leave to send the request proper."""
    return request.method == "OPTIONS" and "Origin" in request.headers and "Access-Control-Request-Method" in request.headers


def respond_preflight(request: web.Request, origins: Sequence[str]) -> web.Response:
    """Answer a preflight request, or raise `HTTPForbidden` if the origin is not among `origins`."""
    if not _match_origin(request, origins):
        raise web.HTTPForbidden(text="this origin may not call; FANOUT_CORS_ORIGINS names those that may")
    # Vendors' clients send headers of their own (`x-stainless-…`), which mean nothing here: an allowed page may send any.
    requested = request.headers.get("Access-Control-Request-Headers")
    allowed = f"{ALLOWED_HEADERS}, {requested}" if requested else ALLOWED_HEADERS
    headers = {"Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE", "Access-Control-Allow-Headers": allowed}
    return web.Response(status=204, headers={**headers, "Access-Control-Max-Age": "600"})


def add_headers(request: web.Request, response: web.StreamResponse, origins: Sequence[str]) -> None:
    """Let the page of an allowed origin read the answer."""
    if not origins:
        return
    # Also for origins that may not read: a shared cache must not give them the answer of one that may.
    response.headers["Vary"] = ", ".join(filter(None, (response.headers.get("Vary"), "Origin")))
    if origin := _match_origin(request, origins):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS


def _match_origin(request: web.Request, origins: Sequence[str]) -> str | None:
    origin = request.headers.get("Origin")
    return origin if origin and ("*" in origins or origin in origins) else None
