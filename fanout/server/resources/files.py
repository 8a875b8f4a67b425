"""`/v1/files`: OpenAI's files, here the input of batches and jobs, and the results of batches.

Source: https://platform.openai.com/docs/api-reference/files
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BeforeValidator, Field

from fanout.core.errors import RequestError, StoreError
from fanout.core.faults import Fault
from fanout.core.suggestions import did_you_mean
from fanout.rendering.errors import error_reply
from fanout.server.dialects.openai import batch_lines
from fanout.server.lifecycle import DISPATCHER, FILE_STORE, JOB_MANAGER, JOB_STORE
from fanout.server.middleware import auth
from fanout.server.resources.listing import (
    ListQuery,
    needs_store,
    parse_whole_number,
    read_query,
    requested_account,
    respond_page,
    to_unix_seconds,
)
from fanout.server.responses import error_response, json_response
from fanout.store.files import PART_BYTES, FileRow, FileStore

PURPOSES = ("batch",)
FIELDS = ("file", "purpose", "expires_after[anchor]", "expires_after[seconds]")
MAX_FIELD_BYTES = 512
MAX_NAME_CHARS = 512
MIN_LIFETIME_S, MAX_LIFETIME_S = 3_600, 2_592_000
"""Source: `ExpiresAfter`, https://github.com/openai/openai-openapi"""
MAX_FORM_BYTES = 64 * 1024
"""What the other fields and the frame of an upload may take."""


class FilesQuery(ListQuery):
    """Which files are listed."""

    limit: Annotated[int, BeforeValidator(parse_whole_number)] = Field(10_000, ge=1, le=10_000)
    """How many at most."""
    order: Literal["asc", "desc"] = "desc"
    """By the time of their making; `desc`: the newest first."""
    purpose: Literal["batch", "batch_output"] | None = None
    """`batch`: what was uploaded; `batch_output`: what a batch has made."""


def render_file(row: FileRow) -> dict[str, Any]:
    """A file as it stands in answers."""
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": int(row.created),
        "expires_at": to_unix_seconds(row.expires),
        "filename": row.filename,
        "purpose": row.purpose,
        "status": "processed",
        "status_details": None,
    }


async def find_file(files: FileStore, id: str, param: str = "file_id") -> FileRow:
    """Raises:
    RequestError: there is no such file.
    """
    row = await files.find(id)
    if row is None:
        raise RequestError([Fault(param, f"no file `{id[:100]}`", "file_not_found")])
    return row


@needs_store
async def upload_file(request: web.Request) -> web.StreamResponse:
    """Serves `POST /v1/files`."""
    _check_origin(request)
    if request.content_type != "multipart/form-data":
        raise web.HTTPUnsupportedMediaType(
            text=f"send `Content-Type: multipart/form-data` with a `file` and `purpose`, not {request.content_type!a:.100}"
        )
    most = request.app[DISPATCHER].settings.environment.max_file_bytes
    if (request.content_length or 0) > most + MAX_FORM_BYTES:
        return _too_large(request, most)
    files = request.app[FILE_STORE]
    id = f"file-{uuid.uuid4().hex}"
    created = time.time()
    await files.begin_upload(id, created=created, account_id=auth.account_id(request) or "")
    try:
        name, size, fields = await _taken(request, files, id, most)
        life = fields.get("expires_after[seconds]")
        expires = created + int(life) if life else None
        await files.finish_upload(id, filename=name, bytes=size, purpose=fields["purpose"], expires=expires)
    except BaseException as error:
        with suppress(StoreError):
            await files.delete(id)
        if isinstance(error, _TooLarge):
            return _too_large(request, most)
        raise
    return json_response(render_file(await find_file(files, id)))


@needs_store
async def list_files(request: web.Request) -> web.StreamResponse:
    """Serves `GET /v1/files`."""
    asked, files = read_query(request, FilesQuery), request.app[FILE_STORE]
    found = await files.list_files(
        limit=asked.limit + 1,
        after=await find_file(files, asked.after, "after") if asked.after else None,
        newest_first=asked.order == "desc",
        purpose=asked.purpose,
        account_id=requested_account(request, asked),
    )
    return respond_page([render_file(row) for row in found[: asked.limit]], more=len(found) > asked.limit)


@needs_store
async def get_file(request: web.Request) -> web.StreamResponse:
    """Serves `GET /v1/files/{file_id}`."""
    return json_response(render_file(await find_file(request.app[FILE_STORE], request.match_info["file_id"])))


@needs_store
async def delete_file(request: web.Request) -> web.StreamResponse:
    """Serves `DELETE /v1/files/{file_id}`."""
    row = await find_file(request.app[FILE_STORE], request.match_info["file_id"])
    await request.app[FILE_STORE].delete(row.id)
    return json_response({"id": row.id, "object": "file", "deleted": True})


@needs_store
async def get_file_content(request: web.Request) -> web.StreamResponse:
    """Serves `GET /v1/files/{file_id}/content`."""
    row = await find_file(request.app[FILE_STORE], request.match_info["file_id"])
    pieces = _parts(request.app[FILE_STORE], row.id) if row.job is None else await _made(request, row)
    name = re.sub(r"[^\w.() -]", "_", row.filename, flags=re.ASCII)
    response = web.StreamResponse(
        headers={
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Content-Type-Options": "nosniff",
        }
    )
    if row.job is None:
        response.content_length = row.bytes
    await response.prepare(request)
    async for piece in pieces:
        if piece:
            await response.write(piece)
    await response.write_eof()
    return response


async def _made(request: web.Request, row: FileRow) -> AsyncIterator[bytes]:
    manager = request.app[JOB_MANAGER]
    return batch_lines.results(
        manager, request.app[JOB_STORE], await manager.job(row.job or ""), good=batch_lines.is_output(row.id)
    )


async def _parts(files: FileStore, id: str) -> AsyncIterator[bytes]:
    part = 0
    while (piece := await files.read_part(id, part)) is not None:
        yield piece
        part += 1


# An upload


class _TooLarge(Exception):
    """An upload is larger than it may be."""


async def _taken(request: web.Request, files: FileStore, id: str, most: int) -> tuple[str, int, Mapping[str, str]]:
    """The file's name and size, and the other fields. Nothing is held but one piece.

    Raises:
        _TooLarge: the file is larger than `most`.
        RequestError: with every wrong field.
    """
    name, size, fields = "", None, {}
    faults: list[Fault] = []
    try:
        reader = await request.multipart()
        async for part in reader:
            if not isinstance(part, BodyPartReader):
                faults.append(Fault("", "holds a multipart within the multipart"))
                break
            field = part.name or ""
            if field == "file" and size is None and part.filename is not None:
                name = part.filename[-MAX_NAME_CHARS:]
                if packed := _encodings(part):
                    faults.append(Fault("file", f"is encoded as `{packed[:32]}`: send it as it is"))
                    break
                size = await _stored(part, files, id, most)
            elif field == "file":
                faults.append(Fault("file", "stands twice" if size is not None else "has no filename: send it as a file"))
                await part.release()
            elif field in FIELDS and field not in fields:
                fields[field] = (await part.read_chunk(MAX_FIELD_BYTES)).decode(errors="replace").strip()
                await part.release()
            else:
                hint = did_you_mean(field, FIELDS) or f"; known: {', '.join(FIELDS)}"
                why = "stands twice" if field in FIELDS else f"unknown field `{field[:64]}`{hint}"
                faults.append(Fault(field[:64], why, "unknown_parameter"))
                break  # whatever it holds is not read
    except (ValueError, AssertionError, HttpProcessingError, web.RequestPayloadError) as error:  # aiohttp's, over a frame
        last = str(error).strip().rpartition("\n")[2].strip() or "it is broken off"
        raise RequestError([Fault("", f"the body is no multipart form: {last[:100]}", "invalid_body")]) from None
    if size is None and not faults:
        faults.append(Fault("file", "is required", "missing_required_parameter"))
    faults += _field_faults(fields) if not faults or "purpose" in fields else ()
    if faults:
        raise RequestError(faults)
    return name, size or 0, fields


def _encodings(part: BodyPartReader) -> str:
    """How a part is packed that would have to be unpacked; nothing where it is plain."""
    plain = ("", "identity", "binary", "8bit", "7bit")
    found = (part.headers.get(name, "").lower() for name in ("Content-Encoding", "Content-Transfer-Encoding"))
    return next((packed for packed in found if packed not in plain), "")


async def _stored(part: BodyPartReader, files: FileStore, id: str, most: int) -> int:
    """Takes in a file piece by piece; its size."""
    waiting, number, size = bytearray(), 0, 0
    while chunk := await part.read_chunk(PART_BYTES):
        size += len(chunk)
        if size > most:
            raise _TooLarge
        waiting += chunk
        while len(waiting) >= PART_BYTES:
            await files.add_part(id, number, bytes(waiting[:PART_BYTES]))
            del waiting[:PART_BYTES]
            number += 1
    if waiting:
        await files.add_part(id, number, bytes(waiting))
    return size


def _field_faults(fields: Mapping[str, str]) -> list[Fault]:
    faults = []
    purpose = fields.get("purpose")
    if purpose is None:
        faults.append(
            Fault("purpose", f"is required: {', '.join(f'`{name}`' for name in PURPOSES)}", "missing_required_parameter")
        )
    elif purpose not in PURPOSES:
        faults.append(Fault("purpose", f"`{purpose[:64]}` is not allowed: {', '.join(f'`{name}`' for name in PURPOSES)}"))
    anchor, life = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor not in (None, "created_at"):
        faults.append(Fault("expires_after[anchor]", f"`{anchor[:64]}` is not allowed: `created_at`"))
    if (anchor is None) != (life is None):
        faults.append(Fault("expires_after", "has both `anchor` and `seconds`, or neither"))
    allowed = life is None or (re.fullmatch(r"[0-9]{1,9}", life) and MIN_LIFETIME_S <= int(life) <= MAX_LIFETIME_S)
    if life is not None and not allowed:
        faults.append(Fault("expires_after[seconds]", f"`{life[:32]}` is not allowed: {MIN_LIFETIME_S} to {MAX_LIFETIME_S}"))
    return faults


def _check_origin(request: web.Request) -> None:
    """A form on a stranger's web page could upload, as a browser asks nobody before it sends one.

    Raises:
        HTTPForbidden: the page is of another host, and is not among FANOUT_CORS_ORIGINS.
    """
    origin = request.headers.get("Origin")
    allowed = request.app[DISPATCHER].settings.environment.cors_origins
    if origin and "*" not in allowed and origin not in allowed and origin.partition("://")[2] != request.headers.get("Host"):
        raise web.HTTPForbidden(text="this origin may not upload; FANOUT_CORS_ORIGINS names those that may")


def _too_large(request: web.Request, most: int) -> web.Response:
    sentence = f"the file is larger than {most} bytes; FANOUT_MAX_FILE_BYTES sets how large one may be"
    headers = {"Connection": "close"}
    return error_response(request, error_reply(413, sentence, param="file", code="file_too_large", headers=headers))
