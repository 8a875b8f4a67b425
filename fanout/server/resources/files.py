"""`/v1/files`: OpenAI's files, here the input of batches and jobs, and the results of batches.

Source: https://platform.openai.com/docs/api-reference/files
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Literal

from aiohttp import web
from pydantic import BeforeValidator, Field

from fanout.core.errors import StoreError
from fanout.core.json_text import JsonObject
from fanout.jobs.openai_batches import is_output_file
from fanout.rendering.batch import DeletedFileJson, FileJson, FileListJson, render_file
from fanout.rendering.errors import ErrorAnswerJson, render_error
from fanout.server.accounts.quotas import check_file, find_room_for_file, take_turn
from fanout.server.dialects.openai import batch_files
from fanout.server.lifecycle import DISPATCHER, FILE_STORE, JOB_MANAGER, JOB_STORE
from fanout.server.middleware import auth
from fanout.server.openapi.endpoint import INVALID_PARAMETERS, JSON, Endpoint, StatusAnswer, list_store_answers
from fanout.server.request_body import check_encoding
from fanout.server.resources.listing import (
    ListQuery,
    page_response,
    parse_whole_number,
    read_query,
)
from fanout.server.resources.storage import find_own_file, needs_store, respond_download
from fanout.server.resources.upload import MAX_LIFETIME_S, MIN_LIFETIME_S, PURPOSES, UploadTooLargeError, receive_upload
from fanout.server.responses import error_response, json_response
from fanout.store.files import FileStore

BYTES = "application/octet-stream"
MAX_FORM_BYTES = 64 * 1024
"""Of an upload's other fields and its frame."""


FILE_LIMIT, KEY_QUOTA = "FANOUT_MAX_FILE_BYTES", "the quota of this key (`max_stored_bytes`)"


class FilesQuery(ListQuery):
    """The part of the list of files to show."""

    limit: Annotated[int, BeforeValidator(parse_whole_number)] = Field(10_000, ge=1, le=10_000)
    """Most files of a page."""
    order: Literal["asc", "desc"] = "desc"
    """Order of creation; `desc`: the newest first."""
    purpose: Literal["batch", "batch_output"] | None = None
    """`batch`: only uploaded files; `batch_output`: only results of batches."""


@needs_store
async def upload_file(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/files`."""
    _check_origin(request)
    if request.content_type != "multipart/form-data":
        raise web.HTTPUnsupportedMediaType(
            text=f"send `Content-Type: multipart/form-data` with a `file` and `purpose`, not {request.content_type!a:.100}"
        )
    check_encoding(request, allowed=())
    max_bytes = request.app[DISPATCHER].settings.environment.max_file_bytes
    # By its announced length, before anything is received; a length that is not announced is counted while it comes.
    if (request.content_length or 0) > max_bytes + MAX_FORM_BYTES:
        return _too_large_response(request, max_bytes)
    left = await find_room_for_file(request)
    files, file_id, created = request.app[FILE_STORE], f"file-{uuid.uuid4().hex}", time.time()
    # Hidden until it is complete; if the process dies meanwhile, a sweep removes its parts.
    await files.begin_upload(file_id, created=created, account_id=auth.choose_account(request) or "")
    most = max_bytes if left == math.inf else min(max_bytes, int(left))
    try:
        upload = await receive_upload(request, files, file_id, most)
        expires = None if upload.lifetime_s is None else created + upload.lifetime_s
        async with take_turn(request):
            await check_file(request, upload.size)
            await files.finish_upload(
                file_id, filename=upload.filename, size_bytes=upload.size, purpose=upload.purpose, expires=expires
            )
    except BaseException as error:  # also when the client has left: half a file is of no use
        with suppress(StoreError):
            await files.delete(file_id)
        if isinstance(error, UploadTooLargeError):
            return _too_large_response(request, most, KEY_QUOTA if most < max_bytes else FILE_LIMIT)
        raise
    return json_response(render_file(await find_own_file(request, file_id)))


@needs_store
async def list_files(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/files`."""
    query, files = read_query(request, FilesQuery), request.app[FILE_STORE]
    found = await files.list_files(
        limit=query.limit + 1,  # one more than shown tells if there is another page
        after=await find_own_file(request, query.after, "after") if query.after else None,
        newest_first=query.order == "desc",
        purpose=query.purpose,
        account_id=auth.choose_account(request, query.account_id),
    )
    shown = found[: query.limit]
    return await page_response(shown, render_file, [row.id for row in shown], has_more=len(found) > query.limit)


@needs_store
async def get_file(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/files/{file_id}`."""
    return json_response(render_file(await find_own_file(request, request.match_info["file_id"])))


@needs_store
async def delete_file(request: web.Request) -> web.StreamResponse:
    """Serve `DELETE /v1/files/{file_id}`."""
    row = await find_own_file(request, request.match_info["file_id"])
    await request.app[FILE_STORE].delete(row.id)
    deleted: DeletedFileJson = {"id": row.id, "object": "file", "deleted": True}
    return json_response(deleted)


@needs_store
async def get_file_content(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/files/{file_id}/content`; a batch's results are made while they are read."""
    row = await find_own_file(request, request.match_info["file_id"])
    if row.job is None:
        pieces, size = _read_parts(request.app[FILE_STORE], row.id), row.bytes
    else:
        manager, is_output = request.app[JOB_MANAGER], is_output_file(row.id)
        # Made while it is read, its size unknown before the end: stored a second time it would double the database.
        pieces = batch_files.read_file(manager, request.app[JOB_STORE], await manager.find_job(row.job), answered=is_output)
        size = None
    return await respond_download(request, pieces, filename=row.filename, content_type=BYTES, size=size)


async def _read_parts(files: FileStore, file_id: str) -> AsyncIterator[bytes]:
    part = 0
    # Each part is a query of its own: a slow reader must not hold a connection of the database.
    while (piece := await files.read_part(file_id, part)) is not None:
        yield piece
        part += 1


def _check_origin(request: web.Request) -> None:
    # Browsers send a form to any host without asking first, so CORS alone does not keep a foreign page from uploading.
    origin = request.headers.get("Origin")
    allowed = request.app[DISPATCHER].settings.environment.cors_origins
    if origin and "*" not in allowed and origin not in allowed and origin.partition("://")[2] != request.headers.get("Host"):
        raise web.HTTPForbidden(text="this origin may not upload; FANOUT_CORS_ORIGINS names those that may")


def _too_large_response(request: web.Request, max_bytes: int, limit: str = FILE_LIMIT) -> web.Response:
    sentence = f"the file is larger than {max_bytes} bytes, the limit set by {limit}"
    # Closed, because the rest of the upload is still on its way and will not be read.
    reply = render_error(413, sentence, param="file", code="file_too_large", headers={"Connection": "close"})
    return error_response(request, reply)


FORM: JsonObject = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "The file, with its name."},
        "purpose": {"type": "string", "enum": list(PURPOSES), "description": "Use of the file: input of a batch or a job."},
        "expires_after[anchor]": {
            "type": "string",
            "enum": ["created_at"],
            "description": "Start of `expires_after[seconds]`.",
        },
        "expires_after[seconds]": {
            "type": "integer",
            "minimum": MIN_LIFETIME_S,
            "maximum": MAX_LIFETIME_S,
            "description": "Time after which it is removed; absent: never.",
        },
    },
}
FILE_ID = {"file_id": ("Id of the file.", "file-0123456789abcdef0123456789abcdef")}
MISSING = "There is no such file."
ENDPOINTS = (
    Endpoint(
        "POST /v1/files",
        upload_file,
        id="upload_file",
        tag="Files and batches",
        summary="Upload a file",
        description="OpenAI's files, here the input of batches (JSONL) and jobs (JSONL, CSV, TSV or Parquet, by their names). "
        "A file may be larger than other bodies: see FANOUT_MAX_FILE_BYTES.",
        form=FORM,
        headers=("x-selected-account-id",),
        answers={
            **list_store_answers(FileJson, "The file.", invalid="Wrong fields, all of them named in `details`."),
            413: StatusAnswer("The file is larger than FANOUT_MAX_FILE_BYTES.", {JSON: ErrorAnswerJson}),
            408: StatusAnswer("The body comes too slowly.", {JSON: ErrorAnswerJson}),
            415: StatusAnswer("The body is not declared as `multipart/form-data`, or is encoded.", {JSON: ErrorAnswerJson}),
        },
    ),
    Endpoint(
        "GET /v1/files",
        list_files,
        id="files",
        tag="Files and batches",
        summary="All files",
        query=FilesQuery,
        headers=("x-selected-account-id",),
        answers=list_store_answers(
            FileListJson, "A page of them.", invalid=INVALID_PARAMETERS, missing="There is no such file, named by `after`."
        ),
    ),
    Endpoint(
        "GET /v1/files/{file_id}",
        get_file,
        id="file",
        tag="Files and batches",
        summary="One file",
        path_parameters=FILE_ID,
        answers=list_store_answers(FileJson, "The file, without its content.", missing=MISSING),
    ),
    Endpoint(
        "GET /v1/files/{file_id}/content",
        get_file_content,
        id="file_content",
        tag="Files and batches",
        summary="Content of a file",
        path_parameters=FILE_ID,
        answers={
            **list_store_answers(FileJson, "", missing=MISSING),
            200: StatusAnswer("The file.", {BYTES: {"type": "string", "format": "binary"}}),
        },
    ),
    Endpoint(
        "DELETE /v1/files/{file_id}",
        delete_file,
        id="delete_file",
        tag="Files and batches",
        summary="Delete a file",
        description="Of a batch's results it deletes the file alone: the job keeps them.",
        path_parameters=FILE_ID,
        answers=list_store_answers(DeletedFileJson, "It is deleted.", missing=MISSING),
    ),
)
