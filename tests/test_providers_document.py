"""docs/providers.md: its table matches the adapters, no provider is missing, and the adapter that it shows works.

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
from tests.support.documents import ROOT, Block, read_blocks, replace_part
from tests.support.upstream.canned import answer_in_pieces, serve_answers

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
"""A value of each parameter that every format with this parameter takes."""
FAR = 10**30
"""A number beyond every range."""
PAIRS = (("temperature", "top_p"), ("presence_penalty", "frequency_penalty"))
"""Parameters of which some providers take only one at a time."""
TEXT_ONLY = frozenset({"best_of", "echo", "suffix"})
FAMILIES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "openai": (
        ("gpt-5, o3 and similar models", "gpt-5"),
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
"""Models of one provider that differ: their label in the table, and one of them."""


class Variant(NamedTuple):
    """A provider's chat or text endpoint, for one family of models."""

    label: str
    provider: str
    kind: str
    model: str = "m"


def list_variants(settings: Settings) -> Iterator[Variant]:
    """Yield every variant of the shipped providers."""
    for name, provider in settings.providers.items():
        row = provider.row
        if row.default_kind != "text":
            families = FAMILIES.get(name, ())
            if name in ("openai", "azure"):
                yield Variant(name, name, "chat")
            for label, model in families:
                yield Variant(f"{name}: {label}", name, "chat", model)
            if not families:
                yield Variant(name, name, "chat")
        if row.default_kind != "chat" or name == "openai" or _has_text_parameters(row):
            yield Variant(name, name, "text")


def _has_text_parameters(row: ProviderRow) -> bool:
    """Return whether the row sets parameters that only text endpoints have."""
    return bool(TEXT_ONLY & {*row.parameters.drop, *row.parameters.rename})


class Fitting:
    """The treatment of parameters by one variant."""

    def __init__(self, provider: Provider, variant: Variant) -> None:
        self._provider = provider
        self._target = Target(variant.model, variant.model, variant.provider, variant.model)
        self._query = Query(prompt="Hi") if variant.kind == "text" else Query(messages=(Message("user", "Hi"),))
        self._sent_always = self._fit().sent

    def build_cells(self) -> tuple[str, ...]:
        """Return a cell for every parameter: `–` if it is not taken, else its name and its range."""
        marks = {name for pair in PAIRS if self._exclude(*pair) for name in pair}
        return tuple(self._build_cell(name) + ("*" if name in marks else "") for name in SAMPLING_NAMES)

    def _fit(self, **sampling: Any) -> Any:
        query = Query(self._query.messages, self._query.prompt, sampling=Sampling(**sampling))
        return self._provider.fit(self._target, query)

    def _build_cell(self, name: str) -> str:
        fitted = self._fit(**{name: PROBES[name]})
        if name in fitted.ignored:
            return "–"
        assert name not in fitted.adjusted
        names = [key for key, value in fitted.sent.items() if self._sent_always.get(key) != value]
        assert names, name
        shown = "" if names[0] == name else f"`{names[0]}`"
        return " ".join(filter(None, (shown, self._build_range(name)))) or "✓"

    def _build_range(self, name: str) -> str:
        if not isinstance(PROBES[name], int | float) or isinstance(PROBES[name], bool):
            return ""
        low, high = self._find_end(name, -FAR), self._find_end(name, FAR)
        if low is None and high is None:
            return ""
        if high is None:
            return low if low and low.startswith(">") else f"≥ {low}"
        return f"≤ {high}" if low is None else low if low == high else f"{low}…{high}"

    def _find_end(self, name: str, far: int) -> str | None:
        """Return the end of a parameter's range towards `far`, or `None` if there is none."""
        fitted = self._fit(**{name: type(PROBES[name])(far)})
        if name in fitted.adjusted:
            return f"{fitted.adjusted[name][1]:g}"
        if name not in fitted.ignored:
            return None
        if isinstance(PROBES[name], float):
            return "> 0"
        return _show_number(self._find_edge(name, PROBES[name], far))

    def _find_edge(self, name: str, taken: int, refused: int) -> int:
        """Return the last whole number that is taken before the next one is ignored."""
        while abs(refused - taken) > 1:
            middle = (taken + refused) // 2
            if name in self._fit(**{name: middle}).ignored:
                refused = middle
            else:
                taken = middle
        return taken

    def _exclude(self, first: str, second: str) -> bool:
        """Return whether the provider takes either parameter, but not both."""
        alone = [name for name in (first, second) if name not in self._fit(**{name: PROBES[name]}).ignored]
        return len(alone) == 2 and bool(self._fit(**{first: PROBES[first], second: PROBES[second]}).ignored)


def _show_number(number: int) -> str:
    """Return the number, as a power of 2 if it is a bound of a machine's whole numbers."""
    bits = (abs(number) + (number > 0)).bit_length() - 1
    return {2**bits - 1: f"2^{bits}-1", -(2**bits): f"-2^{bits}"}.get(number, str(number)) if bits > 15 else str(number)


def build_table() -> str:
    """Return the parameters of every shipped provider as Markdown; providers with equal cells share a line."""
    settings = load_settings(environ={})
    nowhere: Any = None
    shared: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for variant in list_variants(settings):
        fitting = Fitting(create(settings.providers[variant.provider], nowhere), variant)
        shared.setdefault((variant.kind, fitting.build_cells()), []).append(variant.label)
    head = f"| provider | | {' | '.join(f'`{name}`' for name in SAMPLING_NAMES)} |"
    rule = "|" + "---|" * (2 + len(SAMPLING_NAMES))
    rows = [f"| {'; '.join(labels)} | {kind} | {' | '.join(cells)} |" for (kind, cells), labels in shared.items()]
    return "\n".join([head, rule, *rows])


def read_paragraphs() -> Mapping[str, str]:
    """Return the paragraph of each provider, which begins with its name in bold."""
    found = re.finditer(r"^((?:\*\*[\w-]+\*\*(?: and )?)+):.*$", (ROOT / DOCUMENT).read_text(), re.M)
    return {name: text[0] for text in found for name in re.findall(r"[\w-]+(?=\*)", text[1])}


def test_the_table_of_parameters_matches_the_adapters() -> None:
    text = (ROOT / DOCUMENT).read_text()

    assert text == replace_part(text, "parameters", build_table()), "run `python -m tests.test_providers_document`"


def test_every_provider_has_its_paragraph_which_names_its_variables() -> None:
    rows, paragraphs = load_settings(environ={}).providers, read_paragraphs()

    assert sorted(paragraphs) == sorted(rows)
    for name, provider in rows.items():
        row = provider.row
        wanted = {
            *row.api_key_env,
            *filter(None, [row.base_url_env]),
            *re.findall(r"\$\{(\w+)\}", "".join(row.headers.values())),
        }
        assert wanted <= set(re.findall(r"`([A-Z_]+)`", paragraphs[name])), name


def test_every_provider_that_differs_from_its_format_names_the_ignored_parameters() -> None:
    """The ignored parameters are those of OpenAI's chat that its row drops."""
    paragraphs = read_paragraphs()
    for name, provider in load_settings(environ={}).providers.items():
        missing = [drop for drop in provider.row.parameters.drop if f"`{drop}`" not in paragraphs[name]]
        assert missing == [], name


async def test_the_documents_adapter_answers_whole_and_streamed(tmp_path: Path) -> None:
    """The adapter is a file on PYTHONPATH with a row, before a real upstream of its format."""
    adapter, config, body = _read_documented_adapter()
    assert len(adapter.text.splitlines()) <= 45
    (tmp_path / adapter.name).write_text(adapter.text)
    async with serve_answers(_generate_text) as upstream, aiohttp.ClientSession() as session:
        address = re.search(r"http://[\d.:]+", config.text)
        assert address
        (tmp_path / config.name).write_text(config.text.replace(address[0], upstream.url))
        path = os.pathsep.join((str(tmp_path), str(ROOT)))
        async with serve_fanout("--config", str(tmp_path / config.name), PYTHONPATH=path) as server:
            whole = await _complete(session, server, body)
            assert (whole["text"], whole["finish_reason"], whole["error"]) == ("Hello there", "length", None)
            assert (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]) == (3, 2)
            assert whole["ignored_parameters"] == ["logit_bias"]
            assert await _stream_texts(session, server, body) == ["Hello", " there"]
            for prompt, kind in (("refuse", "rate_limit"), ("cut", "network")):
                refused = await _complete(session, server, {**body, "prompt": prompt})
                assert refused["error"]["kind"] == kind
    path, _, sent = upstream.requests[0]
    assert (path, json.loads(sent)) == ("/generate_stream", {"inputs": body["prompt"], "parameters": {"max_new_tokens": 2}})


def _read_documented_adapter() -> tuple[Block, Block, dict[str, Any]]:
    """Return the document's adapter, its configuration, and a request for it."""
    found = {block.language: block for block in read_blocks(DOCUMENT) if block.name}  # the last of each language
    model = next(iter(json.loads(found["json"].text)["models"]))
    return found["python"], found["json"], {"model": model, "prompt": "Say hello", "max_tokens": 2, "logit_bias": {"5": 1}}


async def _generate_text(request: web.Request) -> web.StreamResponse:
    """Answer with text-generation-inference's stream. Source: its docs/openapi.json, `StreamResponse`."""
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
    return await answer_in_pieces(pieces, "text/event-stream")(request)


async def _complete(session: aiohttp.ClientSession, server: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    async with session.post(f"{server}/v1/completion", json=fields) as response:
        body = await response.json()
    choices: list[dict[str, Any]] = body.get("choices") or body["error"]["details"]
    return choices[0] if "error" in choices[0] else {"error": choices[0]}


async def _stream_texts(session: aiohttp.ClientSession, server: str, fields: Mapping[str, Any]) -> list[str]:
    async with session.post(f"{server}/v1/completion", json={**fields, "stream": True}) as response:
        lines = (await response.text()).splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return [choice["text"] for chunk in chunks for choice in chunk["choices"] if choice["text"]]


if __name__ == "__main__":
    document = ROOT / DOCUMENT
    document.write_text(replace_part(document.read_text(), "parameters", build_table()))
