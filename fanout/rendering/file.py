"""Files as `/v1/files` shows them."""

from __future__ import annotations

from typing import Literal, cast

from typing_extensions import TypedDict

from fanout.core.units import to_unix_seconds
from fanout.rendering.page import PageJson
from fanout.store.files import FileRow


class FileJson(TypedDict):
    """A file: uploaded, or made of a batch's results whenever it is read."""

    id: str
    """Id of the file."""
    object: Literal["file"]
    """Always `file`."""
    bytes: int
    """Size; of a batch's results the size at the batch's end."""
    created_at: int
    """Unix seconds."""
    expires_at: int | None
    """Unix seconds; null: never."""
    filename: str
    """Name under which it was uploaded."""
    purpose: Literal["batch", "batch_output"]
    """`batch`: uploaded; `batch_output`: a batch's results."""
    status: Literal["processed"]
    """Deprecated by OpenAI; always `processed`."""
    status_details: None
    """Deprecated by OpenAI; always null."""


class FileListJson(PageJson):
    data: list[FileJson]
    """The files."""


class DeletedFileJson(TypedDict):
    id: str
    """Id of the file."""
    object: Literal["file"]
    """Always `file`."""
    deleted: Literal[True]
    """Always `true`."""


def render_file(row: FileRow) -> FileJson:
    """Return a file without its content."""
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": int(row.created),
        "expires_at": to_unix_seconds(row.expires),
        "filename": row.filename,
        "purpose": cast(Literal["batch", "batch_output"], row.purpose),
        "status": "processed",
        "status_details": None,
    }
