"""The prompt: the argument, standard input and files, joined."""

from __future__ import annotations

import base64
import re
import select
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from fanout.cli.ask.question import Content
from fanout.cli.output import echo
from fanout.core.given_text import BYTE_ORDER_MARK, trim
from fanout.core.image_types import find_image_type
from fanout.core.json_text import JsonObject

PATIENCE_S = 2.0
"""Wait for standard input before a line says that it is read."""
MAX_FILE_BYTES = 20 * 2**20
"""Largest file or standard input of a prompt; providers take no larger images."""


def read_input(prompt: str | None) -> str:
    """Return the argument with standard input below it, or whichever of them is there; empty where neither is.

    Raises:
        UsageError: it is too long, or is not UTF-8.
    """
    try:
        argument = "" if prompt in (None, "-") else str(prompt).removeprefix(BYTE_ORDER_MARK)
        argument.encode()  # an argument that is not UTF-8 holds lone surrogates
        piped = _read_standard_input(has_argument=bool(argument.strip()))
    except UnicodeError:
        raise click.UsageError("the prompt is not UTF-8 text") from None
    return "\n\n".join(text for text in (argument, piped) if text.strip())


def _read_standard_input(*, has_argument: bool) -> str:
    if not sys.stdin or sys.stdin.isatty():
        return ""
    # Some programs leave a pipe open that nobody writes to: the command would seem to hang.
    if has_argument and not select.select([sys.stdin], [], [], PATIENCE_S)[0]:
        echo("reading standard input, to be added to the prompt; `</dev/null` adds nothing", err=True)
    content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise click.UsageError(f"standard input is longer than {MAX_FILE_BYTES // 2**20} MiB; `fanout batch` takes long files")
    return trim(content.decode())


def join_files(text: str, files: Sequence[Path]) -> Content:
    """Return the text with text files below it, each fenced and named, and with images as parts of the message.

    Raises:
        UsageError: a file cannot be read, is empty or too large, or is neither text nor an image.
    """
    images: list[JsonObject] = []
    texts = [text] if text else []
    for path in files:
        content = _read_file(path)
        if media_type := find_image_type(content):
            url = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
            images.append({"type": "image_url", "image_url": {"url": url}})
            continue
        try:
            added = trim(content.decode())
        except UnicodeDecodeError:
            raise click.UsageError(f"-f: `{path}` is neither UTF-8 text nor a PNG, JPEG, GIF or WebP image") from None
        if not added.strip():  # a question about nothing would be paid for
            raise click.UsageError(f"-f: `{path}` is empty")
        texts.append(_fence(path.name, added))
    joined = "\n\n".join(texts)
    return [*([{"type": "text", "text": joined}] if joined else []), *images] if images else joined


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise click.UsageError(f"-f: `{path}` cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise click.UsageError(f"-f: `{path}` is larger than {MAX_FILE_BYTES // 2**20} MiB")
    return content


def _fence(name: str, text: str) -> str:
    """Return a text in a fence that is longer than any within it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, 3)
    return f"{name}:\n{fence}\n{text}\n{fence}"
