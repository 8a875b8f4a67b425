"""`GET /openapi.json` and `GET /docs`: the reference for programs and for people, both made once from the endpoints."""

from __future__ import annotations

import re
from functools import lru_cache

from aiohttp import web
from pydantic_core import to_json

from fanout.core.threads import run_in_thread
from fanout.server.openapi.document import make_document
from fanout.server.openapi.endpoint import ACCESS, JSON, Endpoint, StatusAnswer, list_error_answers
from fanout.server.openapi.html import ADDRESS, render_page
from fanout.server.routes import ROUTES

ABOUT = (
    "Fanout sends one prompt to many language models at once and brings the answers back side by side: each with its own text, "
    "tokens, time, cost or error.\n\n"
    "`POST /v1/completion` compares models in one request. The other endpoints are published contracts, served so that their "
    "own clients work unmodified: OpenAI's and Konko's under `/v1`, Scale's under `/v2` to `/v4`. `null` always means *not "
    "known*, never 0. Where keys are set (FANOUT_API_KEYS), send one as `Authorization: Bearer <key>` or as `x-api-key`."
)
SAFE_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,255}")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@lru_cache(maxsize=4)
def make_pages(endpoints: tuple[Endpoint, ...]) -> tuple[bytes, str]:
    """Return the document of the endpoints as JSON, and as a page."""
    document = make_document(endpoints, description=ABOUT)
    return to_json(document), render_page(document)


async def _get_pages(request: web.Request) -> tuple[bytes, str]:
    # Made at the first request, in a thread: it takes 0.25 s, by which every server would start later.
    return await run_in_thread("setup", make_pages, request.app[ROUTES].endpoints)


async def get_openapi(request: web.Request) -> web.Response:
    """Serve `GET /openapi.json`."""
    return web.Response(body=(await _get_pages(request))[0], content_type="application/json")


async def get_docs(request: web.Request) -> web.Response:
    """Serve `GET /docs`, whose examples show the address that the reader used."""
    page = (await _get_pages(request))[1]
    # The caller writes the Host header: any other text could put markup into the page, or a command into its examples.
    if SAFE_HOST.fullmatch(request.host):
        page = page.replace(ADDRESS, f"{request.scheme}://{request.host}")
    return web.Response(text=page, content_type="text/html", headers={"Content-Security-Policy": POLICY})


FORBIDDEN = list_error_answers(403, ACCESS[403].description)
ENDPOINTS = (
    Endpoint(
        "GET /openapi.json",
        get_openapi,
        id="openapi",
        tag="Server",
        summary="This reference, for programs",
        answers={200: StatusAnswer("OpenAPI 3.1.", {JSON: {"type": "object"}}), **FORBIDDEN},
        is_public=True,
    ),
    Endpoint(
        "GET /docs",
        get_docs,
        id="docs",
        tag="Server",
        summary="This reference, for people",
        answers={200: StatusAnswer("A page that loads nothing.", {"text/html": {"type": "string"}}), **FORBIDDEN},
        is_public=True,
    ),
)
