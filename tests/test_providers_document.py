"""docs/providers.md: its table is what the adapters do, no provider is missing, and its own adapter works.

`python -m tests.test_providers_document` writes the table.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web

from fanout.config.providers_file import ProviderRow
from fanout.config.settings import Settings, load_settings
from fanout.core.messages import Message
from fanout.core.sampling import SAMPLING_NAMES, Sampling
from fanout.core.schema import Query, Target
from fanout.providers import Provider, create
from tests.support.cli import serve_fanout
from tests.support.upstream.canned import answer_in_pieces, serve_answers
from tests.test_readme import ROOT, read_blocks

DOCUMENT = "docs/providers.md"
PROBES: Mapping[str, Any] = {
    "max_tokens": 100,
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 40,
    "n": 2,
    "best_of": 3,
    "seed": 7,
    "stop": ("END",),
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.1,
    "logit_bias": {"5": 1.0},
    "logprobs": 0,
    "echo": True,
    "suffix": "!",
    "user": "me",
}
"""A value of each parameter that every format which has the parameter takes."""
FAR = 10**30
"""Beyond every range."""
PAIRS = (("temperature", "top_p"), ("presence_penalty", "frequency_penalty"))
"""Parameters of which some providers take only one at a time."""
TEXT_ONLY = frozenset({"best_of", "echo", "suffix"})
FAMILIES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "openai": (
        ("gpt-5, o3 and their like", "gpt-5"),
        ("o1", "o1"),
        ("gpt-5.1 to 5.4, while they do not reason", "gpt-5.1"),
    ),
    "azure": (("deployments named as OpenAI's reasoning models", "gpt-5"),),
    "anthropic": (
        ("Claude 3 and older, Opus 4, Sonnet 4", "claude-3-haiku-20240307"),
        ("4.1 to 4.6", "claude-sonnet-4-6"),
        ("Opus 4.7 and newer", "claude-opus-5"),
    ),
    "gemini": (
        ("2.0 and older", "gemini-2.0-flash"),
        ("2.5", "gemini-2.5-flash"),
        ("3 and newer", "gemini-3.6-flash"),
    ),
    "vertex": (("2.5 and older", "gemini-2.5-flash"), ("3 and newer", "gemini-3.6-flash")),
    "bedrock": (
        ("other vendors' models", "amazon.nova-lite-v1:0"),
        ("Claude 4.1 to 4.6", "anthropic.claude-sonnet-4-6"),
        ("Claude Opus 4.7 and newer", "anthropic.claude-opus-5"),
    ),
}
"""Where models of one provider differ: what they are called in the table, and one of them."""


class Line(NamedTuple):
    """One thing that can be asked: a provider's chat or text, of one family of models."""

    label: str
    provider: str
    kind: str
    model: str = "m"


def lines(settings: Settings) -> Iterator[Line]:
    for name, provider in settings.providers.items():
        row = provider.row
        if row.default_kind != "text":
            families = FAMILIES.get(name, ())
            if name in ("openai", "azure"):
                yield Line(name, name, "chat")
            for called, model in families:
                yield Line(f"{name}: {called}", name, "chat", model)
            if not families:
                yield Line(name, name, "chat")
        if row.default_kind != "chat" or name == "openai" or _knows_text(row):
            yield Line(name, name, "text")


def _knows_text(row: ProviderRow) -> bool:
    """The row says something about parameters that only text has."""
    return bool(TEXT_ONLY & {*row.parameters.drop, *row.parameters.rename})


class Asked:
    """What one line's provider does with parameters."""

    def __init__(self, provider: Provider, line: Line) -> None:
        self._provider = provider
        self._target = Target(line.model, line.model, line.provider, line.model)
        self._query = Query(prompt="Hi") if line.kind == "text" else Query(messages=(Message("user", "Hi"),))
        self._unasked = self._fit().sent

    def cells(self) -> tuple[str, ...]:
        """For every parameter: `–` where it is not taken, else under which name and in which range."""
        marks = {name for pair in PAIRS if self._exclude(*pair) for name in pair}
        return tuple(self._cell(name) + ("*" if name in marks else "") for name in SAMPLING_NAMES)

    def _fit(self, **asked: Any) -> Any:
        return self._provider.fit(self._target, _with(self._query, asked))

    def _cell(self, name: str) -> str:
        fitted = self._fit(**{name: PROBES[name]})
        if name in fitted.ignored:
            return "–"
        assert name not in fitted.adjusted
        theirs = [key for key, value in fitted.sent.items() if self._unasked.get(key) != value]
        assert theirs, name
        shown = "" if theirs[0] == name else f"`{theirs[0]}`"
        return " ".join(filter(None, (shown, self._range(name)))) or "✓"

    def _range(self, name: str) -> str:
        if not isinstance(PROBES[name], int | float) or isinstance(PROBES[name], bool):
            return ""
        low, high = self._end(name, -FAR), self._end(name, FAR)
        if low is None and high is None:
            return ""
        if high is None:
            return low if low and low.startswith(">") else f"≥ {low}"
        return f"≤ {high}" if low is None else low if low == high else f"{low}…{high}"

    def _end(self, name: str, far: int) -> str | None:
        """The end of a parameter's range on the side of `far`; `None` where there is none."""
        fitted = self._fit(**{name: type(PROBES[name])(far)})
        if name in fitted.adjusted:
            return f"{fitted.adjusted[name][1]:g}"
        if name not in fitted.ignored:
            return None
        if isinstance(PROBES[name], float):
            return "> 0"
        return _power(self._edge(name, PROBES[name], far))

    def _edge(self, name: str, taken: int, refused: int) -> int:
        """The last whole number that is taken, where the next is ignored."""
        while abs(refused - taken) > 1:
            middle = (taken + refused) // 2
            if name in self._fit(**{name: middle}).ignored:
                refused = middle
            else:
                taken = middle
        return taken

    def _exclude(self, first: str, second: str) -> bool:
        alone = [name for name in (first, second) if name not in self._fit(**{name: PROBES[name]}).ignored]
        return len(alone) == 2 and bool(self._fit(**{first: PROBES[first], second: PROBES[second]}).ignored)


def _with(query: Query, asked: Mapping[str, Any]) -> Query:
    return Query(query.messages, query.prompt, sampling=Sampling(**asked))


def _power(number: int) -> str:
    """As one of 2, where it is a bound of a machine's whole numbers."""
    bits = (abs(number) + (number > 0)).bit_length() - 1
    return {2**bits - 1: f"2^{bits}-1", -(2**bits): f"-2^{bits}"}.get(number, str(number)) if bits > 15 else str(number)


def table() -> str:
    """What every shipped provider takes, as Markdown; providers that take the same share a line."""
    settings = load_settings(environ={})
    nowhere: Any = None
    shared: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for line in lines(settings):
        asked = Asked(create(settings.providers[line.provider], nowhere), line)
        shared.setdefault((line.kind, asked.cells()), []).append(line.label)
    head = f"| provider | | {' | '.join(f'`{name}`' for name in SAMPLING_NAMES)} |"
    rule = "|" + "---|" * (2 + len(SAMPLING_NAMES))
    rows = [f"| {'; '.join(labels)} | {kind} | {' | '.join(cells)} |" for (kind, cells), labels in shared.items()]
    return "\n".join([head, rule, *rows])


def with_table(text: str) -> str:
    """A document with the table between its marks."""
    begin, end = re.search(r"<!-- parameters:.*-->\n", text), text.index("<!-- /parameters -->")
    assert begin
    return f"{text[: begin.end()]}{table()}\n{text[end:]}"


def paragraphs() -> Mapping[str, str]:
    """What is said about each provider: the paragraphs that begin with names in bold."""
    found = re.finditer(r"^((?:\*\*[\w-]+\*\*(?: and )?)+):.*$", (ROOT / DOCUMENT).read_text(), re.M)
    return {name: text[0] for text in found for name in re.findall(r"[\w-]+(?=\*)", text[1])}


def test_the_table_of_parameters_matches_the_adapters() -> None:
    text = (ROOT / DOCUMENT).read_text()

    assert text == with_table(text), "run `python -m tests.test_providers_document`"


def test_every_provider_has_its_paragraph_which_names_its_variables() -> None:
    rows, said = load_settings(environ={}).providers, paragraphs()

    assert sorted(said) == sorted(rows)
    for name, provider in rows.items():
        row = provider.row
        wanted = {
            *row.api_key_env,
            *filter(None, [row.base_url_env]),
            *re.findall(r"\$\{(\w+)\}", "".join(row.headers.values())),
        }
        assert wanted <= set(re.findall(r"`([A-Z_]+)`", said[name])), name


def test_every_provider_that_differs_from_its_format_names_the_ignored_parameters() -> None:
    """By the parameters' names, those of OpenAI's chat that its row drops."""
    said = paragraphs()
    for name, provider in load_settings(environ={}).providers.items():
        missing = [drop for drop in provider.row.parameters.drop if f"`{drop}`" not in said[name]]
        assert missing == [], name


async def test_the_documents_adapter_answers_whole_and_streamed(tmp_path: Path) -> None:
    """As a user would have it: a file on PYTHONPATH, a row, the real server, and a real upstream of that format."""
    adapter, config, asked = _documented()
    assert len(adapter.text.splitlines()) <= 45
    (tmp_path / adapter.name).write_text(adapter.text)
    async with serve_answers(_text_generation) as upstream, aiohttp.ClientSession() as session:
        address = re.search(r"http://[\d.:]+", config.text)
        assert address
        (tmp_path / config.name).write_text(config.text.replace(address[0], upstream.url))
        path = os.pathsep.join((str(tmp_path), str(ROOT)))
        async with serve_fanout("--config", str(tmp_path / config.name), PYTHONPATH=path) as server:
            whole = await _answer(session, server, asked)
            assert (whole["text"], whole["finish_reason"], whole["error"]) == ("Hello there", "length", None)
            assert (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]) == (3, 2)
            assert whole["ignored_parameters"] == ["logit_bias"]
            assert await _streamed(session, server, asked) == ["Hello", " there"]
            for prompt, kind in (("refuse", "rate_limit"), ("cut", "network")):
                refused = await _answer(session, server, {**asked, "prompt": prompt})
                assert refused["error"]["kind"] == kind
    path, _, body = upstream.requests[0]
    assert (path, json.loads(body)) == ("/generate_stream", {"inputs": asked["prompt"], "parameters": {"max_new_tokens": 2}})


def _documented() -> tuple[Any, Any, dict[str, Any]]:
    """The document's adapter, the row that names it, and a request for it."""
    found = {block.language: block for block in read_blocks(DOCUMENT) if block.name}  # the last of each language
    model = next(iter(json.loads(found["json"].text)["models"]))
    return found["python"], found["json"], {"model": model, "prompt": "Say hello", "max_tokens": 2, "logit_bias": {"5": 1}}


async def _text_generation(request: web.Request) -> web.StreamResponse:
    """text-generation-inference's own stream. Source: its docs/openapi.json, `StreamResponse`."""
    body = await request.json()
    if body["inputs"] == "refuse":
        return web.json_response({"error": "Model is overloaded", "error_type": "overloaded"}, status=429)
    details = {"finish_reason": "length", "generated_tokens": 2, "input_length": 3, "seed": None}
    first = {"index": 1, "token": {"text": "Hello", "special": False}, "generated_text": None, "details": None}
    last = {
        **first,
        "index": 2,
        "token": {"text": " there", "special": False},
        "generated_text": "Hello there",
        "details": details,
    }
    events = [first] if body["inputs"] == "cut" else [first, last]
    pieces = [f"data:{json.dumps(event)}\n\n".encode() for event in events]
    answer: web.StreamResponse = await answer_in_pieces(pieces, "text/event-stream")(request)
    return answer


async def _answer(session: aiohttp.ClientSession, server: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    async with session.post(f"{server}/v1/completion", json=asked) as response:
        body = await response.json()
    choices: list[dict[str, Any]] = body.get("choices") or body["error"]["details"]
    return choices[0] if "error" in choices[0] else {"error": choices[0]}


async def _streamed(session: aiohttp.ClientSession, server: str, asked: Mapping[str, Any]) -> list[str]:
    async with session.post(f"{server}/v1/completion", json={**asked, "stream": True}) as response:
        lines = (await response.text()).splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return [choice["text"] for chunk in chunks for choice in chunk["choices"] if choice["text"]]


if __name__ == "__main__":
    document = ROOT / DOCUMENT
    document.write_text(with_table(document.read_text()))
