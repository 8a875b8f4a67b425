"""The language of the scripted upstream: a model's name determines its answer, as bytes on the wire.

A name is words joined by `-`; a word that takes a value is followed by it: `chunks-100-gap-0.002`. Words combine freely.
`A-then-B` answers the first request for this model by A and all later ones by B; with `times-3` in A, the first three.

| word            | effect, on whole and streamed answers alike unless noted                                              |
|-----------------|--------------------------------------------------------------------------------------------------------|
| `ok`            | nothing more: "This is <model>." in 4 pieces, usage 10 in, 4 out, finish reason `stop`; `n` is honoured |
| `say-WORD`      | this text                                                                                              |
| `prefers-WORD`  | a judge's verdict: that WORD is in the better answer; with `says-X` the line is `X: …` instead            |
| `echo`          | the request's JSON as text                                                                             |
| `chunks-N`      | "w0 w1 … " in N pieces (an `echo`, `say` or `mb` text is cut into N)                                   |
| `mb-N`          | N MB of text, in pieces of 64 KB; with `chunks-1` all in one line                                      |
| `surrogates`    | the text holds lone surrogates, escaped as JSON does                                                   |
| `input-N` `tokens-N` `cached-N` | figures of the usage; a stream carries usage only with `include_usage`                 |
| `no_usage` `no_done` `finish-X` | usage absent; no `[DONE]`; another finish reason                                       |
| `unfinished`    | stream: ends in order, with neither finish reason, usage nor `[DONE]`; whole: finish reason null       |
| `empty_choices` | `choices` is `[]`                                                                                      |
| `remaining-N`   | header `x-ratelimit-remaining-requests: N`                                                             |
| `limit-N` `reset-X` | headers `x-ratelimit-limit-requests: N`, `x-ratelimit-reset-requests: X`                        |
| `sleep-S`       | S seconds before the headers                                                                           |
| `first-S`       | headers at once (a chat stream also its empty role chunk), the first content S seconds later           |
| `gap-S`         | S seconds between pieces; a whole body comes in as many pieces                                         |
| `tail-S`        | half at once, the rest S seconds later                                                                 |
| `hang`          | nothing ever comes                                                                                     |
| `hang_body`     | half comes, then nothing                                                                               |
| `drop`          | connection closed without an answer                                                                    |
| `cut` `rst`     | half, then connection closed (FIN) or reset (RST)                                                      |
| `bad_http`      | not an HTTP answer                                                                                     |
| `bad_chunk`     | half, then a chunk whose size is not a number                                                          |
| `bad_json`      | whole: half of the JSON, as a complete body; stream: half, an event of broken JSON, the rest           |
| `bad_sse`       | stream: half, lines that are no SSE field and not UTF-8, the rest; whole: as without                   |
| `html`          | status 200 and a web page                                                                              |
| `error-CODE`    | an error object with status 200; stream: after half, `[DONE]` behind it; at once with `chunks-0`       |
| `300` … `599`   | this status, an OpenAI error body; 3xx has a `Location` on this server                                 |
| `fail-N`        | N times status 500: `fail-2-then-ok`                                                                   |
| `s-X` `ms-X`    | header `Retry-After: X` or `retry-after-ms: X`, literally: `429-s-0.2`, `429-s--5`, `429-s-soon`        |
| `date-S`        | `Retry-After` as HTTP date, S seconds from now (whole seconds, rounded up)                             |
| `code-X`        | the error's `code`: `429-code-insufficient_quota`                                                      |
| `retry-B`       | header `x-should-retry: B`                                                                             |
| `leak`          | the error's message repeats the request's key and this server's address, over 500 characters           |
| anything else   | 404 `model_not_found`                                                                                  |
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Script:
    """One way to answer; every field is a word of the language."""

    times: int = 1
    status: int = 200
    say: str = ""
    prefers: str = ""
    says: str = "VERDICT"
    echo: bool = False
    chunks: int | None = None
    mb: int = 0
    surrogates: bool = False
    input: int = 10
    tokens: int = 4
    cached: int | None = None
    no_usage: bool = False
    no_done: bool = False
    finish: str = "stop"
    unfinished: bool = False
    empty_choices: bool = False
    remaining: str = ""
    limit: str = ""
    reset: str = ""
    sleep: float = 0.0
    first: float = 0.0
    gap: float = 0.0
    tail: float = 0.0
    hang: bool = False
    hang_body: bool = False
    drop: bool = False
    cut: bool = False
    rst: bool = False
    bad_http: bool = False
    bad_chunk: bool = False
    bad_json: bool = False
    bad_sse: bool = False
    html: bool = False
    error: str = ""
    s: str = ""
    ms: str = ""
    date: float | None = None
    code: str = ""
    retry: str = ""
    leak: bool = False


WORDS = {field.name: str(field.type) for field in fields(Script)}
VALUES: dict[str, Callable[[str], Any]] = {"int": int, "int | None": int, "float": float, "float | None": float, "str": str}


def parse_script(model: str) -> list[Script]:
    """Return the phases in a model's name.

    Raises:
        ValueError: the name is not in this language.
    """
    return [_parse_phase(phase) for phase in model.split("-then-")]


def choose_phase(phases: list[Script], call: int) -> Script:
    """Return the phase that answers request number `call` (from 0); the last one lasts for ever."""
    for phase in phases[:-1]:
        if call < phase.times:
            return phase
        call -= phase.times
    return phases[-1]


def _parse_phase(text: str) -> Script:
    found: dict[str, Any] = {}
    words = iter(re.split(r"(?<!-)-", text))  # the second of two dashes is a minus
    for word in words:
        if re.fullmatch("[345][0-9]{2}", word):
            found["status"] = int(word)
        elif word == "fail":
            found |= {"status": 500, "times": int(next(words, ""))}
        elif word in WORDS:
            found[word] = WORDS[word] == "bool" or VALUES[WORDS[word]](next(words, ""))
        elif word != "ok":
            raise ValueError(f"unknown word `{word}`")
    return Script(**found)


FAULT_SCRIPTS = (
    *("ok", "first-0.2", "tail-0.2", "400", "401", "500", "503", "529"),
    *("429", "429-s-0.2", "429-ms-200", "429-date-1", "429-s--5", "429-s-soon", "429-s-1e12"),
    *("hang", "hang_body", "drop", "cut", "rst", "bad_http", "bad_chunk", "bad_json", "bad_sse", "html"),
    *("empty_choices", "no_usage", "mb-50", "surrogates", "error-502", "unfinished", "no_done"),
)
"""One script for every fault known from providers, and for a good answer."""
