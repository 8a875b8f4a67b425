"""Redaction of other people's sentences: no key, no host, no address; one line, not long."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_MESSAGE_CHARS = 500

_TOP = (
    r"(?:com|net|org|io|ai|dev|cloud|app|co|gov|edu|eu|us|uk|de|fr|cn|internal|intra|local|lan|corp|home|test|example|invalid)"
)
_HEX = r"[0-9a-f]{1,4}(?::[0-9a-f]{1,4})"
HIDDEN = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*+://[^\s\"'<>)\]]+", re.IGNORECASE), "[address]"),
    (re.compile(r"\bBearer\s+[^\s\"',;]+", re.IGNORECASE), "[key]"),
    (re.compile(r"\b(?:pk|rk|gsk|xai|hf|r8|pplx|nvapi|csk|fw|tgp|key)[-_][A-Za-z0-9*_.…-]{12,}"), "[key]"),
    (re.compile(r"\b(?:sk-[A-Za-z0-9*_.…-]+|(?:AKIA|AIza|eyJ)[A-Za-z0-9_.-]{12,})"), "[key]"),
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
    for secret in secrets:
        text = text.replace(secret, "[key]")
    if len(text) > 4 * MAX_MESSAGE_CHARS:  # bounds the patterns' work; the last word may be half a key, so it goes too
        text = text[: 4 * MAX_MESSAGE_CHARS].rpartition(" ")[0]
    for pattern, label in HIDDEN:
        text = pattern.sub(label, text)
    text = " ".join(text.split())
    return text if len(text) <= MAX_MESSAGE_CHARS else f"{text[: MAX_MESSAGE_CHARS - 1]}…"
