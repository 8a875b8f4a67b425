"""Requests of the adapters, validated by the vendors' own types in an environment of their own (`scripts/clients vendors`)."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from fanout.config.providers_file import ProviderRow
from fanout.config.settings import ProviderSettings, load_settings
from fanout.core.messages import ImagePart, Message, TextPart
from fanout.core.sampling import Sampling
from fanout.core.schema import Call, Query, Target
from fanout.providers import create
from fanout.providers.transport.http import HttpProvider

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-clients" / "vendors" / "bin" / "python"
EVERYTHING = Sampling(
    max_tokens=5,
    temperature=0.5,
    top_p=0.9,
    top_k=40,
    n=2,
    best_of=3,
    seed=7,
    stop=("END", "\n"),
    presence_penalty=0.5,
    frequency_penalty=0.5,
    repetition_penalty=1.1,
    logit_bias={"5": 10},
    logprobs=3,
    echo=True,
    suffix="!",
    user="me",
)
PNG = "data:image/png;base64,iVBORw0KGgo="
HELLO = Message("user", "Hello")
LOOK = Message("user", (TextPart("What?"), ImagePart("https://x/y.png"), ImagePart(PNG)))
CALLED = {"tool_calls": [{"id": "c12345678", "type": "function", "function": {"name": "clock", "arguments": '{"zone":"CET"}'}}]}
ASSISTED = (HELLO, Message("assistant", "", CALLED), Message("tool", "Noon", {"tool_call_id": "c12345678"}), HELLO)
CLOCK = {"name": "clock", "description": "Tells", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}
TOOLS = [{"type": "function", "function": CLOCK}]
SCHEMA = {"name": "x", "schema": {"type": "object", "properties": {}}}

QUESTIONS: Mapping[str, Query] = {
    "nothing": Query(messages=(HELLO,)),
    "everything": Query(messages=(Message("system", "Be brief"), HELLO), sampling=EVERYTHING),
    "one penalty": Query(messages=(HELLO,), sampling=Sampling(presence_penalty=0.5, logprobs=0, n=1)),
    "images": Query(messages=(Message("system", "Be brief"), LOOK)),
    "tools": Query(messages=ASSISTED, passthrough={"tools": TOOLS, "tool_choice": "auto"}),
    "no tool": Query(messages=(HELLO,), passthrough={"tools": TOOLS, "tool_choice": "none"}),
    "one tool": Query(
        messages=(HELLO,), passthrough={"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "clock"}}}
    ),
    "json": Query(messages=(HELLO,), passthrough={"response_format": {"type": "json_object"}}),
    "schema": Query(messages=(HELLO,), passthrough={"response_format": {"type": "json_schema", "json_schema": SCHEMA}}),
    "text": Query(prompt="Once"),
    "text with everything": Query(prompt="Once", sampling=EVERYTHING),
}

MARKED = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
THOUGHTS = {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}]}
OWN_QUESTIONS: Mapping[str, Mapping[str, Query]] = {
    "anthropic": {
        "marks of the cache": Query(
            messages=(
                Message("system", (TextPart("Be "), TextPart("brief", MARKED))),
                Message("user", (TextPart("What?", MARKED), ImagePart(PNG, extra=MARKED))),
                Message("assistant", "", CALLED | MARKED | THOUGHTS),
                Message("tool", "Noon", {"tool_call_id": "c12345678"} | MARKED),
            ),
            passthrough={"tools": [TOOLS[0] | MARKED], **MARKED},
        )
    }
}
"""Fields of messages that only some formats have."""

FORMATS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "openai chat": ("openai", "chat", ("gpt-4o", "gpt-5", "o1", "gpt-5.6")),
    "openai text": ("openai", "text", ("gpt-3.5-turbo-instruct",)),
    "groq chat": ("groq", "chat", ("openai/gpt-oss-20b",)),
    "together chat": ("together", "chat", ("meta-llama/Llama-3-8b",)),
    "together text": ("together", "text", ("meta-llama/Llama-3-8b",)),
    "fireworks chat": ("fireworks", "chat", ("accounts/fireworks/models/x",)),
    "fireworks text": ("fireworks", "text", ("accounts/fireworks/models/x",)),
    "mistral chat": ("mistral", "chat", ("mistral-large-latest",)),
    "anthropic": ("anthropic", "chat", ("claude-3-haiku-20240307", "claude-sonnet-4-6", "claude-haiku-5-5")),
    "gemini": ("gemini", "chat", ("gemini-2.0-flash", "gemini-2.5-flash", "gemini-3.6-flash")),
    "cohere": ("cohere", "chat", ("command-a-03-2025",)),
}
"""A format of validate.py → the shipped row that speaks it, its requests, its models: a new one is a line."""

OPTIONS = r"\.stream_options: Extra inputs are not permitted"
BESIDE: Mapping[str, str] = {
    "groq chat": OPTIONS,
    "together chat": rf"{OPTIONS}|\.0\.index: Field required|\.tool_choice\..*",
    "together text": OPTIONS,
    "fireworks chat": OPTIONS,
    "fireworks text": OPTIONS,
}
"""Fields that services take although their own types lack them: OpenAI's `stream_options`; calls without `index` (Together)."""

BAD: Mapping[str, tuple[str, dict[str, Any]]] = {
    "unknown field": ("anthropic", {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}], "n": 2}),
    "missing field": ("anthropic", {"model": "m", "messages": [{"role": "user", "content": "x"}]}),
    "wrong part": (
        "anthropic",
        {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
    ),
    "unknown field within": ("openai chat", {"model": "m", "messages": [{"role": "user", "content": "x", "nickname": "y"}]}),
    "wrong type": ("openai text", {"model": "m", "prompt": "x", "max_tokens": "many"}),
    "snake": ("gemini", {"contents": [{"role": "user", "parts": [{"text": "x"}]}], "generation_config": {}}),
    "unknown in configuration": ("gemini", {"contents": [], "generationConfig": {"maxTokens": 5}}),
    "unknown in part": ("gemini", {"contents": [{"role": "user", "parts": [{"image_url": "x"}]}]}),
    "not renamed": ("cohere", {"model": "m", "messages": [{"role": "user", "content": "x"}], "top_p": 0.5}),
    "unknown in message": ("cohere", {"model": "m", "messages": [{"role": "user", "content": "x", "name": "y"}]}),
    "seed": ("mistral chat", {"model": "m", "messages": [{"role": "user", "content": "x"}], "seed": 5}),
    "logit bias": ("together text", {"model": "m", "prompt": "x", "stop": 5}),
    "wrong role": ("groq chat", {"model": "m", "messages": [{"role": "tool", "content": "x"}]}),
    "no prompt": ("fireworks text", {"model": "m"}),
    "too few tokens": ("bedrock", {"messages": [], "inferenceConfig": {"maxTokens": 0}}),
}
"""Faults that validation must find, or it proves nothing."""


@lru_cache(maxsize=16)
def build_provider(name: str) -> HttpProvider:
    """A shipped row with a key; one that is not shipped, as its adapter is without one."""
    nowhere: Any = None
    environ = {f"{variable}_API_KEY": "sk-0123456789" for variable in (name.upper(), "CO")}
    settings = load_settings(environ=environ).providers.get(name)
    if settings is None:
        settings = ProviderSettings(name, ProviderRow(adapter=name), "test", "https://up.test", None, {}, (), None, 2**24)
    provider = create(settings, nowhere)
    assert isinstance(provider, HttpProvider)
    return provider


def list_requests(name: str) -> Iterator[dict[str, Any]]:
    """Every question to every model of a format, whole and streamed."""
    row, kind, models = FORMATS[name]
    provider = build_provider(row)
    for model in models:
        target = Target(model, model, row, model)
        for title, query in {**QUESTIONS, **OWN_QUESTIONS.get(name, {})}.items():
            if (query.messages is None) != (kind == "text"):
                continue
            for stream in (False, True):
                call = Call(0, 0, 0, target, query, fitted=provider.fit(target, query))
                body = json.loads(b"".join(provider.encode(call, stream=stream).pieces))
                yield {"name": f"{name}: {model}: {title}{', streamed' if stream else ''}", "format": name, "body": body}


def validate(params: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the faults that the vendors' types find."""
    if not PYTHON.exists():
        reason = "the environment of the vendors' types is missing: run scripts/clients vendors"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    command = [str(PYTHON), str(HERE / "validate.py")]
    done = subprocess.run(command, input=json.dumps(params), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    report: dict[str, list[str]] = json.loads(done.stdout)
    assert len(report) == len(params)
    return report


@lru_cache(maxsize=1)
def validate_all() -> dict[str, list[str]]:
    """All requests of all formats at once: importing the vendors' packages takes seconds."""
    return validate([request for name in FORMATS for request in list_requests(name)])


@pytest.mark.parametrize("name", FORMATS)
def test_our_requests_conform_to_the_vendors_types(name: str) -> None:
    report = {title: faults for title, faults in validate_all().items() if title.startswith(f"{name}: ")}
    assert len(report) >= 4
    known = re.compile(BESIDE.get(name, r"(?!)"))
    wrong = {title: [fault for fault in faults if not known.fullmatch(fault)] for title, faults in report.items()}
    assert {title: faults for title, faults in wrong.items() if faults} == {}


def test_the_vendors_types_find_a_wrong_field() -> None:
    """Unknown fields at any depth, missing ones, other types."""
    report = validate([{"name": name, "format": kind, "body": body} for name, (kind, body) in BAD.items()])
    assert [name for name, wrong in report.items() if not wrong] == []
