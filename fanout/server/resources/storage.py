"""Answers of the endpoints that need the store: where it is off, fails, or refuses, and files to save."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from functools import wraps

from aiohttp import web

from fanout.core.errors import RequestError, StoreError
from fanout.jobs.job import Job
from fanout.observability.logs import log
from fanout.rendering.errors import render_error, render_faults
from fanout.server.lifecycle import FILE_STORE, JOB_MANAGER, STORE
from fanout.server.middleware import auth
from fanout.server.openapi.endpoint import Handler
from fanout.server.responses import error_response
from fanout.store.files import FileRow, find_file

STATUSES: Mapping[str, int] = {
    "file_not_found": 404,
    "batch_not_found": 404,
    "job_not_found": 404,
    "comparison_not_found": 404,
    "ballot_not_found": 404,
    "ballots_exhausted": 404,
    "key_not_found": 404,
    "too_many_keys": 409,
    "quota_exceeded": 403,
    "wrong_state": 409,
    "changed": 409,
}
"""HTTP status by the first fault's kind; 400 for every other kind."""


class BrokenDownloadError(Exception):
    """A file that broke off after its head was sent."""


def needs_store(handler: Handler) -> Handler:
    """Wrap a handler of files, batches or jobs: it runs only if there is a store, whose errors become answers."""

    @wraps(handler)
    async def respond(request: web.Request) -> web.StreamResponse:
        if JOB_MANAGER not in request.app:
            # Before the body is read, so that no upload of gigabytes is received in vain.
            return store_off_response(request, "nothing is kept here, so no files and jobs")
        try:
            return await handler(request)
        except RequestError as error:
            return error_response(request, render_faults(error.faults, STATUSES.get(error.faults[0].kind, 400)))
        except StoreError as error:
            return store_failed_response(request, error, "store.failed", "the database cannot be read or written now")

    return respond


async def find_own_job(request: web.Request, job_id: str | None = None) -> Job:
    """Return a job, by default the one in the path; raise `RequestError` if the caller's account has no such item."""
    manager, id_ = request.app[JOB_MANAGER], request.match_info["job_id"] if job_id is None else job_id
    return await manager.find_job(id_, auth.find_account(request))


async def find_own_file(request: web.Request, file_id: str, param: str = "file_id") -> FileRow:
    """Return the file that the field `param` names; raise `RequestError` if the caller's account has no such item."""
    return await find_file(request.app[FILE_STORE], file_id, param, auth.find_account(request))


def store_off_response(request: web.Request, sentence: str) -> web.Response:
    """Return the error answer for a server without a store, where a retry cannot help."""
    message, headers = f"{sentence}: FANOUT_STORE is `off`", {"x-should-retry": "false"}
    return error_response(request, render_error(503, message, type_="configuration_error", code="store_off", headers=headers))


def store_failed_response(request: web.Request, error: StoreError, event: str, sentence: str) -> web.Response:
    """Log the reason of a store's failure, and return the error answer."""
    # The reason is only logged, because it may name the database and its host.
    log.error(event, database=request.app[STORE].name, reason=str(error))
    message = f"{sentence}; the log has the details"
    headers = {"Retry-After": "5"}
    reply = render_error(503, message, type_="server_error", code="store_unavailable", headers=headers)
    return error_response(request, reply)


async def respond_download(
    request: web.Request, pieces: AsyncIterator[bytes], *, filename: str, content_type: str, size: int | None = None
) -> web.StreamResponse:
    """Send a file piece by piece, so that memory does not grow with it; its `size` in bytes may be unknown before its end.

    Raises:
        BrokenDownloadError: it broke off; then the connection is cut, so that nobody takes the part for the whole.
    """
    name = re.sub(r"[^\w.() -]", "_", filename, flags=re.ASCII)  # a quote or line break would end the header
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return await respond_pieces(request, pieces, content_type=content_type, headers=headers, size=size)


async def respond_pieces(
    request: web.Request,
    pieces: AsyncIterator[bytes],
    *,
    content_type: str,
    headers: Mapping[str, str] | None = None,
    size: int | None = None,
) -> web.StreamResponse:
    """Send content piece by piece; see `respond_download`."""
    response = web.StreamResponse(headers={"Content-Type": content_type, **(headers or {})})
    if size is not None:
        response.content_length = size
    first = await anext(pieces, b"")  # before the head: what fails at once is an error, not a broken file
    await response.prepare(request)
    try:
        if first:  # an empty piece would be the end of a chunked body
            await response.write(first)
        async for piece in pieces:
            if piece:
                await response.write(piece)
        await response.write_eof()
    except ConnectionError:
        raise
    except Exception as error:  # also of the store: an answer in JSON would be read as the end of the file
        raise BrokenDownloadError(request.path) from error
    return response
