"""`GET /`, the page for people, and its files. It uses the public API alone; docs/page.md describes it."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from typing_extensions import Doc, TypedDict

import fanout
from fanout.server.middleware.compression import accepts_gzip
from fanout.server.openapi.endpoint import JSON, Endpoint, StatusAnswer, list_error_answers
from fanout.server.page.assets import Asset, load_assets
from fanout.server.responses import json_response

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # No text can become code: the page never hands a string to the parser of HTML, and may not.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Content Security Policy. Source: https://www.w3.org/TR/CSP3/, https://www.w3.org/TR/trusted-types/"""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
}
IMMUTABLE = "public, max-age=31536000, immutable"


class HomeJson(TypedDict):
    """Addresses of this server."""

    name: Annotated[str, Doc("`Fanout`.")]
    version: Annotated[str, Doc("Version of the server.")]
    page: Annotated[str, Doc("The page for people, which a browser gets here.")]
    docs: Annotated[str, Doc("The reference for people.")]
    openapi: Annotated[str, Doc("The reference for programs.")]
    models: Annotated[str, Doc("The catalogue.")]
    completion: Annotated[str, Doc("One prompt to many models, by POST.")]


async def get_home(request: web.Request) -> web.Response:
    """Serve `GET /`: the page to browsers, addresses as JSON to programs."""
    if "text/html" not in request.headers.get("Accept", ""):
        home: HomeJson = {
            "name": "Fanout",
            "version": fanout.__version__,
            "page": "/",
            "docs": "/docs",
            "openapi": "/openapi.json",
            "models": "/v1/models",
            "completion": "/v1/completion",
        }
        response = json_response(home)
    else:
        response = _respond_asset(request, load_assets().index, "no-cache")
    response.headers["Vary"] = "Accept, Accept-Encoding"
    return response


async def get_asset(request: web.Request) -> web.Response:
    """Serve `GET /assets/{digest}/{name}`."""
    assets, name = load_assets(), request.match_info["name"]
    found = assets.files.get(name)
    if found is None or request.path != f"{assets.base}/{name}":
        # A page that was loaded before the server was renewed finds this, and loads itself again.
        raise web.HTTPNotFound(text=f"no file `{name[:100]}` of this version of the page; load the page again")
    response = _respond_asset(request, found, IMMUTABLE)
    response.headers["Vary"] = "Accept-Encoding"
    return response


async def get_icon(request: web.Request) -> web.Response:
    """Serve `GET /favicon.ico`, which browsers ask for by themselves."""
    return _respond_asset(request, load_assets().files["favicon.svg"], "public, max-age=86400")


def _respond_asset(request: web.Request, asset: Asset, cache: str) -> web.Response:
    is_compressed = accepts_gzip(request.headers.get("Accept-Encoding", ""))
    headers = {**HEADERS, "Cache-Control": cache, **({"Content-Encoding": "gzip"} if is_compressed else {})}
    body = asset.compressed if is_compressed else asset.body
    return web.Response(body=body, content_type=asset.content_type, charset="utf-8", headers=headers)


FORBIDDEN = list_error_answers(403, "No keys are configured: only this machine may call, by a loopback address.")
ENDPOINTS = (
    Endpoint(
        "GET /",
        get_home,
        id="home",
        tag="Server",
        summary="The page for people",
        description="With `Accept: text/html` the page, which compares models side by side, votes, and watches jobs; "
        "otherwise the addresses of this server.",
        answers={
            200: StatusAnswer("The page, or addresses.", {JSON: HomeJson, "text/html": {"type": "string"}}),
            **FORBIDDEN,
        },
        is_public=True,
    ),
    Endpoint(
        "GET /assets/{digest}/{name:.+}",
        get_asset,
        id="page_file",
        tag="Server",
        summary="A file of the page",
        path_parameters={
            "digest": ("Digest of all files.", load_assets().base.rpartition("/")[2]),
            "name": ("Path of the file.", "main.js"),
        },
        answers={
            200: StatusAnswer("The file.", {"text/javascript": {"type": "string"}, "text/css": {"type": "string"}}),
            **FORBIDDEN,
            **list_error_answers(404, "There is no such file in this version."),
        },
        is_public=True,
    ),
    Endpoint(
        "GET /favicon.ico",
        get_icon,
        id="icon",
        tag="Server",
        summary="The page's icon",
        answers={200: StatusAnswer("The icon.", {"image/svg+xml": {"type": "string"}}), **FORBIDDEN},
        is_public=True,
    ),
)
