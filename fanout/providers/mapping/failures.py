"""Failures of a provider's calls: their kind, delay and request id, in a message that is safe to show.

Shared by every adapter over HTTP; an adapter adds only the error codes of its own format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from multidict import istr

from fanout.core.errors import ProviderError
from fanout.core.schema import Failure, FailureKind
from fanout.core.value_type import value_type
from fanout.providers.mapping.error_objects import find_error, read_message, read_status
from fanout.providers.mapping.json_fields import as_name, as_object, as_text
from fanout.providers.mapping.redact import MAX_MESSAGE_CHARS, hide, redact, shorten
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
    499: "cancelled",  # Google, Cohere and nginx: the call was given up on the way
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
"""Broader words, used where there is no status: in streams and in answers of status 200."""

MESSAGES: Mapping[str, str] = {
    "invalid_api_key": "`{name}` refused the API key",
    "no_api_key": "`{name}` wants an API key, and none is set",
    "permission_denied": "`{name}` does not permit this call",
    "cancelled": "`{name}` cancelled the call",
    "bad_request": "`{name}` refused the request",
    "content_filter": "`{name}` refused the content",
    "not_found": "`{name}` does not know this model or address",
    "quota": "the quota of this account at `{name}` is used up",
    "rate_limit": "`{name}` accepts no more requests for now",
    "timeout": "`{name}` timed out",
    "server": "`{name}` had an internal error",
}
"""By kind, but `auth` by its code: with a 403 the key was taken, and a permission, a service or a region is missing."""
PERMISSION_CODES = frozenset({"organization_on_hold"})
PERMISSION_TYPES = frozenset({"permission_error", "PERMISSION_DENIED"})
"""Words of failures that are about a permission, where no status tells: Anthropic's, in streams; Google's."""
OVERLOADED = (503, 529)
"""Statuses of the 5xx with a sentence for callers: what is missing, and for how long. 529 is Anthropic's."""
AUTH_CAUSES = frozenset({"invalid_api_key", "permission_denied"})

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


@value_type(frozen=True, slots=True)
class Origin:
    """The provider and the response that an answer or a failure comes from."""

    name: str
    secrets: tuple[str, ...] = ()
    """Keys and header values as sent, which no message may show."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the response; none before there is one."""
    status: int | None = None
    """HTTP's, of a refusal; `None` within an answer of status 200, where the error's own number stands for it."""
    is_keyless: bool = False
    """No key was sent, for the provider may do without one."""

    def with_secret(self, secret: str) -> Origin:
        """Return this origin with one more secret to hide."""
        return replace(self, secrets=(*self.secrets, secret), is_keyless=False)

    def with_response(self, headers: Mapping[str, str], status: int | None = None) -> Origin:
        """Return this origin with the response that a call got."""
        return Origin(self.name, self.secrets, headers, status, self.is_keyless)

    @property
    def request_id(self) -> str | None:
        """The id under which the provider's support finds the request."""
        for name in REQUEST_ID_HEADERS:
            if value := self.headers.get(name):
                return hide(value, self.secrets)[:200]
        return None

    def upstream_error(
        self, error: Mapping[str, Any], *, kind: FailureKind | None = None, request_id: object = None
    ) -> ProviderError:
        """Return the failure that an error object of the provider's means.

        Args:
            error: found by `find_error`; may be empty.
            kind: from a table of the adapter's own format.
            request_id: from the body.
        """
        status = self.status or read_status(error)
        message = read_message(error)
        code, category = (
            _read_word(error.get("code")),
            _read_word(error.get("type") or error.get("error_type") or error.get("status")),
        )
        delay_s = find_retry_after_s(self.headers, error, message)
        # A 403 means a permission, unless its own code is about the key.
        is_about_key = kind == "auth" or CODE_KINDS.get(code or "") == "auth"
        lacks_permission = category in PERMISSION_TYPES or code in PERMISSION_CODES or (status == 403 and not is_about_key)
        kind = kind or _find_kind(status, (code, category), error, message, delay_s)
        auth_code = "permission_denied" if lacks_permission else "invalid_api_key"
        return ProviderError(
            Failure(
                kind,
                _write_message(self, auth_code if kind == "auth" else kind, status, message),
                code=auth_code if kind == "auth" else _pick_code(self, status, code or category),
                param=_pick_param(self, kind, error.get("param")),
                status=status,
                retry_after_s=delay_s,
                request_id=self.request_id or as_name(hide(as_text(request_id), self.secrets)),
                should_retry={"true": True, "false": False}.get(self.headers.get("x-should-retry", "").strip().lower()),
            )
        )

    def finish_error(self, word: str, message: str = "", kind: FailureKind | None = None) -> ProviderError:
        """Return the failure of an answer whose finish reason, `word`, means that it failed."""
        return self.upstream_error(
            {"message": message or f"`{self.name}` broke off its answer: `{word}`", "code": word}, kind=kind
        )

    def answer_error(self, sentence: str, code: str) -> ProviderError:
        """Return the failure of an answer that makes no sense; `sentence` follows the provider's name."""
        return ProviderError(Failure("malformed", f"`{self.name}` {sentence}", code=code))

    def no_answer_error(self, missing: str, body: Mapping[str, Any]) -> ProviderError:
        """Return the failure of a whole body without an answer, with the sentence of its own that it may have."""
        # Some hosts refuse with status 200, in a shape that is no error's.
        sentence = redact(read_message(find_error(body)), self.secrets)
        return self.answer_error(f"sent an answer without {missing}{sentence and f': {sentence}'}", "no_choices")

    def request_error(self, sentence: str, param: str = "messages") -> ProviderError:
        """Return the failure of a request that the format cannot express; `sentence` follows the provider's name.

        Leaving that part out would put another question to this model than to the others.
        """
        return ProviderError(Failure("unsupported", f"`{self.name}` {sentence}", code="unsupported_content", param=param))


def configuration_error(sentence: str, code: str = "not_configured") -> ProviderError:
    """Return the failure of a call that cannot even be sent."""
    return ProviderError(Failure("not_configured", sentence, code=code))


def _read_word(value: object) -> str | None:
    return value if isinstance(value, str) and value and not value.isdigit() else None


def _find_kind(
    status: int | None, words: tuple[str | None, ...], error: Mapping[str, Any], message: str, delay_s: float | None
) -> FailureKind:
    # By the code first: `insufficient_quota` is a 429 like any other.
    for word in filter(None, words):
        if word in CODE_KINDS:
            return CODE_KINDS[word]
    if status == 403 and as_object(error.get("metadata")).get("reasons"):
        return "content_filter"  # OpenRouter's moderation
    if status == 402 and delay_s is not None:
        return "rate_limit"  # a host that says when to come back has not closed the account
    if status in (400, 429) and delay_s is None and BILLING.search(message[: 4 * MAX_MESSAGE_CHARS]):
        return "quota"
    if status is not None:
        return STATUS_KINDS.get(status, "bad_request" if 400 <= status < 500 else "server")
    return next((TYPE_KINDS[word] for word in words if word and word in TYPE_KINDS), "server")


def _write_message(origin: Origin, cause: str, status: int | None, message: str) -> str:
    """Return the upstream's sentence, redacted; ours before it where it is about keys, instead of it about inner faults."""
    # A 5xx may hold a stack trace.
    is_passed_on = (status is None or 400 <= status < 500 or status in OVERLOADED) and "Traceback" not in message
    shown = redact(message, origin.secrets) if is_passed_on else ""
    if shown and cause not in AUTH_CAUSES:
        return shown
    if status is not None and 300 <= status < 400:
        sentence = f"`{origin.name}` redirects elsewhere, where no key is sent; set its `base_url` to the final address"
    else:
        is_missing = cause == "invalid_api_key" and origin.is_keyless
        sentence = MESSAGES.get("no_api_key" if is_missing else cause, MESSAGES["server"]).format(name=origin.name)
    sentence = f"{sentence} (HTTP {status})" if status else sentence
    return shorten(f"{sentence}: {shown}") if shown else sentence


def _pick_code(origin: Origin, status: int | None, code: str | None) -> str | None:
    if status is not None and 300 <= status < 400:
        return "redirect"
    is_word = code is not None and re.fullmatch(r"[\w.-]{1,64}", code) and redact(code, origin.secrets) == code
    return code if is_word else None


def _pick_param(origin: Origin, kind: FailureKind, param: object) -> str | None:
    if kind == "auth" or not isinstance(param, str) or not 0 < len(param) <= 100:
        return None
    return param if redact(param, origin.secrets) == param else None
