"""What a provider's refusal means: kind, delay, whose request it was, and a message that is safe to show.

Shared by every adapter over HTTP; an adapter adds only the error codes of its own format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multidict import istr

from fanout.core.errors import ProviderError
from fanout.core.json_text import parse
from fanout.core.schema import Failure, FailureKind
from fanout.providers.mapping.redact import MAX_MESSAGE_CHARS, redact
from fanout.providers.mapping.retry_after import find_retry_after_s

STATUS_KINDS: Mapping[int, FailureKind] = {
    401: "auth",
    402: "quota",
    403: "auth",
    404: "not_found",
    408: "timeout",
    409: "server",  # OpenAI's and Anthropic's own clients try it again
    424: "server",  # TGI and Bedrock: the model itself failed
    429: "rate_limit",
    498: "server",  # Groq: no capacity left in the flex tier
}
"""Every other 4xx is `bad_request`; 3xx, 5xx and an error without a status are `server`."""

CODE_KINDS: Mapping[str, FailureKind] = {
    "insufficient_quota": "quota",
    "credit_balance_exhausted": "quota",
    "organization_spend_limit_exceeded": "quota",
    "project_spend_limit_exceeded": "quota",
    "organization_usage_limit_exceeded": "quota",
    "billing_hard_limit_reached": "quota",
    "billing_not_active": "quota",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "context_length_exceeded": "bad_request",
    "exceed_context_size_error": "bad_request",
    "invalid_api_key": "auth",
    "model_not_found": "not_found",
    "rate_limit_exceeded": "rate_limit",
}
"""Codes that say more than the status. Source: https://platform.openai.com/docs/guides/error-codes; llama.cpp; Azure."""

TYPE_KINDS: Mapping[str, FailureKind] = {
    "authentication_error": "auth",
    "permission_error": "auth",
    "invalid_request_error": "bad_request",
    "validation": "bad_request",
    "not_found_error": "not_found",
    "rate_limit_error": "rate_limit",
    "overloaded": "rate_limit",
    "timeout_error": "timeout",
}
"""Broader words, heeded where there is no status: in streams and in answers of status 200."""

OWN_WORDS: Mapping[FailureKind, str] = {
    "auth": "`{name}` refused the API key",
    "bad_request": "`{name}` refused the request",
    "content_filter": "`{name}` refused the content",
    "not_found": "`{name}` does not know this model or address",
    "quota": "the quota of this account at `{name}` is used up",
    "rate_limit": "`{name}` takes no more requests for now",
    "timeout": "`{name}` gave up waiting",
    "server": "`{name}` had an error of its own",
}

REQUEST_ID_HEADERS = (
    istr("x-request-id"),
    istr("request-id"),
    istr("x-amzn-requestid"),
    istr("apim-request-id"),
    istr("mistral-correlation-id"),
    istr("x-debug-trace-id"),  # Cohere
    istr("inference-id"),  # Cerebras, Hugging Face
)

BILLING = re.compile(r"quota.*billing|credit balance|trial key.*month", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose refusal it is: what all failures of one provider have in common."""

    name: str
    secrets: tuple[str, ...]
    """Keys and header values, as sent."""

    def also(self, secret: str) -> Origin:
        return Origin(self.name, (*self.secrets, secret))

    def malformed(self, sentence: str, code: str) -> ProviderError:
        """The failure of an answer that is not one; `sentence` follows the provider's name."""
        return ProviderError(Failure("malformed", f"`{self.name}` {sentence}", code=code))


def refusal(
    origin: Origin,
    status: int | None,
    headers: Mapping[str, str],
    error: Mapping[str, Any],
    *,
    kind: FailureKind | None = None,
    request: Any = None,
) -> ProviderError:
    """The failure that an error object means.

    Args:
        status: HTTP's; `None` where the error came inside an answer of status 200: its own number then stands for it.
        error: what `find_error` found; may be empty.
        kind: what the adapter knows by a table of its own format.
        request: the request's id, where the body says it.
    """
    status = status or _status_in(error)
    message = _message(error)
    code, category = _word(error.get("code")), _word(error.get("type") or error.get("error_type") or error.get("status"))
    delay_s = find_retry_after_s(headers, error, message)
    kind = kind or _kind(status, (code, category), error, message, delay_s)
    failure = Failure(
        kind=kind,
        message=_safe_message(origin, kind, status, message),
        code=_safe_code(origin, kind, status, code or category),
        param=_safe_param(origin, kind, error.get("param")),
        status=status,
        retry_after_s=delay_s,
        request_id=request_id(headers) or (request[:200] if isinstance(request, str) and request else None),
        should_retry={"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower()),
    )
    return ProviderError(failure)


def is_error(body: Any) -> bool:
    """Whether a body of status 200, or a chunk of a stream, is an error all the same."""
    if isinstance(body, list):
        return len(body) == 1 and is_error(body[0])
    return isinstance(body, dict) and (bool(body.get("error")) or body.get("object") == "error")


def parse_error_body(body: bytes) -> Mapping[str, Any]:
    """`find_error` a refusal's body, be it JSON, a plain sentence or a proxy's web page (which says nothing)."""
    try:
        return find_error(parse(body))
    except ValueError:
        text = body[: 8 * MAX_MESSAGE_CHARS].decode("utf-8", "replace").strip()
        return {} if text.startswith("<") else {"message": text}


def find_error(body: Any) -> Mapping[str, Any]:
    """The error object of a body that is an error, whatever the host's framework makes of it; empty where there is none.

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
    if error and not isinstance(error, bool):
        return {**body, "message": error}
    detail = body.get("detail")
    if isinstance(detail, dict):
        return find_error(detail) or detail
    return body if detail is None else {**_detail(detail), **body}


def _detail(detail: Any) -> dict[str, Any]:
    """FastAPI's `detail`: a sentence, or one object for every wrong field."""
    if not isinstance(detail, list):
        return {"message": detail}
    items = [item for item in detail if isinstance(item, dict) and isinstance(item.get("msg"), str)]
    paths = [_path(item.get("loc")) for item in items]
    message = "; ".join(f"{path}: {item['msg']}" if path else item["msg"] for item, path in zip(items, paths, strict=True))
    return {"message": message, "param": next(iter(paths), None)}


def _path(location: Any) -> str:
    steps = location if isinstance(location, list) else []
    return ".".join(str(step) for step in steps if step != "body" and isinstance(step, str | int))


def _message(error: Mapping[str, Any]) -> str:
    """The error's sentence; with what the model's own host said where a router only passes it on (OpenRouter)."""
    message = error.get("message")
    if isinstance(message, dict):
        message = _detail(message.get("detail")).get("message")
    if not isinstance(message, str):
        message = ""
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    return f"{message}: {raw}" if isinstance(raw, str) and message else message


def _status_in(error: Mapping[str, Any]) -> int | None:
    for name in ("status_code", "http_status_code", "code", "status"):
        value = error.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and 400 <= value <= 599:
            return value
    return None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value and not value.isdigit() else None


def _kind(
    status: int | None, words: tuple[str | None, ...], error: Mapping[str, Any], message: str, delay_s: float | None
) -> FailureKind:
    for word in filter(None, words):
        if word in CODE_KINDS:
            return CODE_KINDS[word]
    metadata = error.get("metadata")
    if status == 403 and isinstance(metadata, dict) and metadata.get("reasons"):
        return "content_filter"  # OpenRouter's moderation
    if status == 402 and delay_s is not None:
        return "rate_limit"  # a host that says when to come back has not closed the account
    if status in (400, 429) and delay_s is None and BILLING.search(message[: 4 * MAX_MESSAGE_CHARS]):
        return "quota"
    if status is not None:
        return STATUS_KINDS.get(status, "bad_request" if 400 <= status < 500 else "server")
    return next((TYPE_KINDS[word] for word in words if word and word in TYPE_KINDS), "server")


def _safe_message(origin: Origin, kind: FailureKind, status: int | None, message: str) -> str:
    """The upstream's sentence, redacted; our own where it is about keys, or about what went wrong inside the provider."""
    passed_on = kind != "auth" and (status is None or 400 <= status < 500)
    shown = redact(message, origin.secrets) if passed_on else ""
    if shown:
        return shown
    if status is not None and 300 <= status < 400:
        sentence = f"`{origin.name}` redirects elsewhere, where no key is sent; set its `base_url` to the final address"
    else:
        sentence = OWN_WORDS.get(kind, OWN_WORDS["server"]).format(name=origin.name)
    return f"{sentence} (HTTP {status})" if status else sentence


def _safe_code(origin: Origin, kind: FailureKind, status: int | None, code: str | None) -> str | None:
    if kind == "auth":
        return "permission_denied" if status == 403 else "invalid_api_key"
    if status is not None and 300 <= status < 400:
        return "redirect"
    is_word = code is not None and re.fullmatch(r"[\w.-]{1,64}", code) and redact(code, origin.secrets) == code
    return code if is_word else None


def _safe_param(origin: Origin, kind: FailureKind, param: Any) -> str | None:
    if kind == "auth" or not isinstance(param, str) or not 0 < len(param) <= 100:
        return None
    return param if redact(param, origin.secrets) == param else None


def request_id(headers: Mapping[str, str]) -> str | None:
    """The id under which the provider's support finds the request."""
    for name in REQUEST_ID_HEADERS:
        if value := headers.get(name):
            return value[:200]
    return None
