"""Redaction of what comes from upstream: no key, host or address in its sentences, no secret in any other field.

Whatever an adapter makes of an upstream's bytes and headers passes `hide_secrets` on its way out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import SecretStr

from fanout.core.errors import ProviderError
from fanout.core.json_text import JsonObject
from fanout.core.schema import Choice, Completion, Delta, Failure

MAX_MESSAGE_CHARS = 500
MAX_SEARCHED_CHARS = 64 * 1024
"""Longer texts beside an answer are images and audio, whose base64 spells no key."""
MIN_SECRET_CHARS = 6
"""Shorter values would blot out harmless words."""
MODELS_WORDS = ("function", "custom")
"""Fields of a tool call that the model has written: name and arguments. The rest, its id above all, is the host's."""
SIGNATURE = re.compile(r"(?:Signature|Credential)=([^\s,]+)")
"""The parts of AWS's `Authorization` header. Source: AWS Signature Version 4."""

TEXT_FIELDS = {
    kind: tuple(field.name for field in fields(kind) if "str" in str(field.type) and field.name != "partial")
    for kind in (Completion, Failure)
}
"""Fields of results that hold an upstream's words, the model's excepted."""
READ_TEXTS = {kind: attrgetter(*names) for kind, names in TEXT_FIELDS.items()}
Result = TypeVar("Result", bound=Completion | Failure)

_TOP = (
    r"(?:com|net|org|io|ai|dev|cloud|app|co|gov|edu|eu|us|uk|de|fr|cn|internal|intra|local|lan|corp|home|test|example|invalid)"
)
_HEX = r"[0-9a-f]{1,4}(?::[0-9a-f]{1,4})"
HIDDEN = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*+://[^\s\"'<>)\]]+", re.IGNORECASE), "[address]"),
    (re.compile(r"\bBearer\s+[^\s\"',;]+", re.IGNORECASE), "[key]"),
    (re.compile(r"\b(?:pk|rk|gsk|xai|hf|r8|pplx|nvapi|csk|fw|tgp|key)[-_][A-Za-z0-9*_.…-]{12,}"), "[key]"),
    (re.compile(r"\b(?:sk-[A-Za-z0-9*_.…-]+|(?:A[KS]IA|AIza|eyJ|ya29)[A-Za-z0-9_.-]{12,})"), "[key]"),
    (re.compile(r"[^\s\"'`(]*\*{3,}[^\s\"'`,;)]*"), "[key]"),  # as OpenAI shows a key that it refused
    # Signatures, session tokens and credentials of whatever make: no word of a sentence is as long.
    (re.compile(r"(?<![\w+/%=])[\w+/%=]{64,}+"), "[key]"),
    (re.compile(rf"(?<![\w.-])(?:(?:[a-z0-9-]{{1,63}}+\.)+{_TOP}|localhost)\b(?::\d+)?", re.IGNORECASE), "[host]"),
    (re.compile(r"(?<=host=)['\"]?[^\s'\",)]+['\"]?"), "[host]"),
    (re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?![\w.]*\w)"), "[address]"),
    (
        re.compile(
            rf"(?<![\w:.])\[?(?:{_HEX}{{7}}|(?:{_HEX}{{0,6}})?::(?:{_HEX}{{0,6}})?)\]?(?::\d+)?(?![\w:])", re.IGNORECASE
        ),
        "[address]",
    ),
)
"""Patterns of what a message must not give away: keys, and where a provider, its proxies or its machines are."""


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` in one line of at most 500 characters, without keys, host names, addresses and the `secrets` themselves."""
    text = hide(text, secrets)
    if len(text) > 4 * MAX_MESSAGE_CHARS:  # bounds the patterns' work; the last word may be half a key, so it goes too
        text = text[: 4 * MAX_MESSAGE_CHARS].rpartition(" ")[0]
    for pattern, label in HIDDEN:
        text = pattern.sub(label, text)
    return shorten(" ".join(text.split()))


def shorten(text: str) -> str:
    """Return at most 500 characters of `text`."""
    return text if len(text) <= MAX_MESSAGE_CHARS else f"{text[: MAX_MESSAGE_CHARS - 1]}…"


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without the `secrets`."""
    for secret in secrets:
        text = text.replace(secret, "[key]")
    return text


def hide_within(value: Any, secrets: Collection[str]) -> Any:
    """Return a JSON value without the `secrets` in its texts and names."""
    if isinstance(value, str):
        return hide(value, secrets) if len(value) <= MAX_SEARCHED_CHARS else value
    if isinstance(value, dict):
        return {hide(name, secrets): hide_within(inner, secrets) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [hide_within(inner, secrets) for inner in value]
    return value


def spell_secrets(values: Iterable[SecretStr | str | None]) -> tuple[str, ...]:
    """Return secrets in the spellings in which an upstream may return them, the longest first.

    Args:
        values: keys, or the values of headers that bear one behind a scheme, as `Bearer …`.
    """
    found: set[str] = set()
    for value in values:
        text = (value.get_secret_value() if isinstance(value, SecretStr) else value or "").strip()
        for part in (text, text.partition(" ")[2], *SIGNATURE.findall(text)):
            found |= {part, quote(part, safe="", errors="surrogateescape")}
    # A key may be the beginning of another one.
    return tuple(sorted((part for part in found if len(part) >= MIN_SECRET_CHARS), key=len, reverse=True))


def hide_secrets(result: Result, secrets: Collection[str]) -> Result:
    """Return an answer or a failure without the `secrets` in any of its fields. The model's own words stay as they are."""
    kind: type[Completion] | type[Failure] = Failure
    choices: tuple[Choice, ...] = ()
    if isinstance(result, Completion):
        kind, choices = Completion, result.choices
    # One look at all of them together, since nearly always there is nothing to hide.
    seen = "\n".join(filter(None, READ_TEXTS[kind](result)))
    for choice in choices:
        if choice.native_finish_reason:
            seen += choice.native_finish_reason
    for secret in secrets:
        if secret in seen:
            break
    else:
        return result
    changes: JsonObject = {
        name: hide(text, secrets) for name in TEXT_FIELDS[kind] if isinstance(text := getattr(result, name), str)
    }
    if choices:
        changes["choices"] = tuple(
            replace(choice, native_finish_reason=hide(choice.native_finish_reason, secrets))
            if choice.native_finish_reason
            else choice
            for choice in choices
        )
    return replace(result, **changes)


def has_beside_text(answer: Completion) -> bool:
    """Return whether there is something beside the text of an answer, which few have."""
    # A list: a generator costs every answer twice as much.
    return [choice for choice in answer.choices if choice.message.extra or choice.message.tool_calls] != []


class SecretGuard:
    """The secrets of one request, and what keeps them from leaving with its result or its failure.

    Args:
        secrets: in all their spellings, see `spell_secrets`.
    """

    __slots__ = ("_secrets",)

    def __init__(self, secrets: Collection[str]) -> None:
        self._secrets = secrets

    def hide(self, result: Completion) -> Completion:
        """Return what `hide_secrets` makes of an answer, without secrets in what stands beside its text either."""
        if has_beside_text(result):
            result = replace(result, choices=tuple(map(self._hide_beside_text, result.choices)))
        return hide_secrets(result, self._secrets)

    def hide_in_pieces(self, deltas: list[Delta]) -> list[Delta]:
        """Hide the secrets in what pieces of a stream hold beside text; return the pieces."""
        for delta in deltas:
            if delta.extra:
                delta.extra = hide_within(delta.extra, self._secrets)
            if delta.tool_calls:
                delta.tool_calls = self._hide_in_tool_calls(delta.tool_calls)
        return deltas

    def _hide_beside_text(self, choice: Choice) -> Choice:
        message = choice.message
        extra, tool_calls = hide_within(message.extra, self._secrets), self._hide_in_tool_calls(message.tool_calls)
        return replace(choice, message=replace(message, extra=extra, tool_calls=tool_calls))

    def _hide_in_tool_calls(self, calls: Iterable[JsonObject]) -> tuple[JsonObject, ...]:
        return tuple(
            {name: value if name in MODELS_WORDS else hide_within(value, self._secrets) for name, value in call.items()}
            for call in calls
        )

    def check(self, error: BaseException) -> None:
        """Raise in place of an error that holds a secret one that does not.

        Raises:
            ProviderError: without the secret.
        """
        if isinstance(error, ProviderError):
            failure = hide_secrets(error.failure, self._secrets)
            if failure is not error.failure:
                raise ProviderError(failure) from error.__cause__
