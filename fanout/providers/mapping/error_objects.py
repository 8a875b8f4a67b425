"""Error objects in the bodies of refusals and answers, whatever the host's framework makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanout.core.json_text import JsonObject, parse
from fanout.providers.mapping.json_fields import as_object, as_objects, as_text
from fanout.providers.mapping.redact import MAX_MESSAGE_CHARS


def is_error(body: object) -> bool:
    """Tell whether a body of status 200, or a chunk of a stream, is an error all the same."""
    if isinstance(body, list):
        return len(body) == 1 and is_error(body[0])
    return isinstance(body, dict) and (bool(body.get("error")) or body.get("object") == "error")


def find_error(body: object) -> JsonObject:
    """Return the error object of a body that is an error; an empty one where there is none.

    OpenAI `{"error": {…}}`, TGI and Ollama `{"error": "…"}`, Google `[{"error": {…}}]`, FastAPI `{"detail": …}`,
    Mistral and older vLLM flat `{"message": …}`.
    """
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    if not isinstance(body, dict):
        return {"message": body} if isinstance(body, str) else {}
    error = body.get("error")
    if isinstance(error, dict):
        return error
    if error and not isinstance(error, bool):  # some answer `{"error": true, "message": …}`
        return {**body, "message": error}
    detail = body.get("detail")
    if isinstance(detail, dict):
        return find_error(detail) or detail
    return body if detail is None else {**_read_detail(detail), **body}


def parse_error_body(body: bytes | bytearray) -> JsonObject:
    """Return the object of a refusal's body, be it JSON or a plain sentence; a proxy's web page tells nothing."""
    try:
        value = parse(body)
    except ValueError:
        sentence = body[: 8 * MAX_MESSAGE_CHARS].decode("utf-8", "replace").strip()
        return {} if sentence.startswith("<") else {"message": sentence}  # HTML of a proxy
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, dict) else find_error(value)


def read_message(error: Mapping[str, Any]) -> str:
    """Return the error's sentence, with the words of the model's own host where a router passes them on (OpenRouter)."""
    message = error.get("message")
    if isinstance(message, dict):
        message = _read_detail(message.get("detail")).get("message")
    message, raw = as_text(message), as_object(error.get("metadata")).get("raw")
    return f"{message}: {raw}" if isinstance(raw, str) and message else message


def read_status(error: Mapping[str, Any]) -> int | None:
    """Return the HTTP status that the error itself names."""
    for name in ("status_code", "http_status_code", "code", "status"):
        value = error.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and 400 <= value <= 599:
            return value
    return None


def _read_detail(detail: object) -> JsonObject:
    """Read FastAPI's `detail`: a sentence, or one object for every wrong field."""
    if not isinstance(detail, list):
        return {"message": detail}
    items = [item for item in as_objects(detail) if isinstance(item.get("msg"), str)]
    paths = [_join_path(item.get("loc")) for item in items]
    message = "; ".join(f"{path}: {item['msg']}" if path else item["msg"] for item, path in zip(items, paths, strict=True))
    return {"message": message, "param": next(iter(paths), None)}


def _join_path(location: object) -> str:
    steps = location if isinstance(location, list) else []
    return ".".join(str(step) for step in steps if step != "body" and isinstance(step, str | int))
