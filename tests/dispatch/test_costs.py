"""Costs of answers from real local servers: whole and streamed, by the rows that are shipped."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fanout.config.overlay import SHIPPED
from fanout.core.schema import Outcome
from fanout.core.usage import MAX_TOKENS, MAX_USD
from fanout.dispatch.pricing import SOURCE
from tests.support.builders.dispatcher import expect_completion, open_observed_dispatcher
from tests.support.builders.settings import write_providers_file
from tests.support.cli import run_command
from tests.support.openai_format import build_choice, build_chunk, encode_chunks
from tests.support.upstream.canned import answer_in_pieces, answer_with, serve_answers

ROWS = json.loads(Path(SHIPPED).read_text())["providers"]


async def ask(folder: Path, name: str, usage: Mapping[str, Any], *, stream: bool, **head: Any) -> Outcome:
    """Return the outcome of one call to a provider as it is shipped, but at a server here that reports this usage."""
    provider = name.partition("/")[0]
    if stream:
        chunks = build_chunk("Yes."), build_chunk(None, "stop"), {"choices": [], "usage": usage}
        answer = answer_in_pieces([encode_chunks(*({**chunk, **head} for chunk in chunks))], "text/event-stream")
    else:
        answer = answer_with({"choices": [build_choice("Yes.")], "usage": usage, **head})
    async with serve_answers(answer) as server:
        row = {**ROWS[provider], "base_url": server.url, "base_url_env": None, "key_optional": True}
        async with open_observed_dispatcher(server.url, folder, more={"providers": {provider: row}}) as opened:
            if stream:
                await opened.stream(name)
            else:
                await opened.run(name)
            (outcome,) = opened.outcomes
    assert expect_completion(outcome).choices[0].message.text == "Yes."
    return outcome


def count(prompt: int, completion: int, total: int | None = None, **more: Any) -> dict[str, Any]:
    total = prompt + completion if total is None else total
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total, **more}


BYOK: dict[str, Any] = {"is_byok": True, "cost_details": {"upstream_inference_cost": 6.3e-06}}
GATEWAY: dict[str, Any] = {"prompt_tokens_details": {"cached_tokens": 0}, "cache_creation_input_tokens": 1500}
HEARD: dict[str, Any] = {"prompt_tokens_details": {"audio_tokens": 37, "cached_tokens": 0}}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("model", "answered", "usage", "usd", "source"),
    [
        ("perplexity/sonar", "sonar", count(10, 20, cost={"request_cost": 0.005, "total_cost": 0.00503}), 0.00503, "reported"),
        ("openrouter/openai/gpt-4o-mini", "x", count(14, 7, cost=0, **BYOK), 6.3e-06, "reported"),
        ("xai/grok-4-fast", "x", count(468, 82, 870, cost_in_usd_ticks=2_488_500), 0.00024885, "reported"),
        ("deepinfra/any/model", "x", count(15, 16, estimated_cost=2.68e-05), 2.68e-05, "reported"),
        ("vercel/anthropic/claude-sonnet-4", "x", count(2000, 5, cost=0.0071, **GATEWAY), 0.0071, "reported"),
        ("azure/my-deployment", "gpt-4.1-mini-2025-04-14", count(20, 20), 4e-05, f"{SOURCE}: gpt-4.1-mini"),
        ("openai/gpt-audio-mini", "gpt-audio-mini-2025-10-06", count(53, 123, **HEARD), 0.0006748, f"{SOURCE}: gpt-audio-mini"),
        ("openai/gpt-4o", None, count(1000, 100), 0.0035, f"{SOURCE}: gpt-4o"),
        ("openai/gpt-4o", "nova-7", count(1000, 100), None, None),
        ("openai/gpt-4o", "gpt-4o", count(1000, 100, **HEARD), None, None),
    ],
)
async def test_an_answer_costs_what_its_provider_states_or_what_is_published_for_the_model_that_answered(
    model: str,
    answered: str | None,
    usage: Mapping[str, Any],
    usd: float | None,
    source: str | None,
    stream: bool,
    tmp_path: Path,
) -> None:
    cost = (await ask(tmp_path, model, usage, stream=stream, model=answered)).cost
    if usd is None:
        assert cost is None
    else:
        assert cost is not None
        assert cost.usd == pytest.approx(usd, rel=1e-9)
        assert cost.source == source


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_impossible_figure_counts_as_not_reported(stream: bool, tmp_path: Path) -> None:
    outcome = await ask(tmp_path, "openai/gpt-4o-mini", count(MAX_TOKENS + 1, 5, cost=MAX_USD), stream=stream)
    usage = expect_completion(outcome).usage
    assert usage
    assert (usage.input_tokens, usage.output_tokens, outcome.cost) == (None, 5, None)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_figures_that_no_database_takes_do_not_leave_the_dispatcher(stream: bool, tmp_path: Path) -> None:
    """Sums of usage, of requests and of jobs rely on it; an adapter of an operator's own may report anything."""
    more = {"providers": {"odd": {"adapter": "tests.support.adapters.misbehaving"}}}
    async with open_observed_dispatcher("http://127.0.0.1:1/v1", tmp_path, more=more) as opened:
        if stream:
            await opened.stream("odd/boasting")
        else:
            await opened.run("odd/boasting")
        (outcome,) = opened.outcomes
    usage = expect_completion(outcome).usage
    assert usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, outcome.cost) == (None, None, 3, None)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_alias_that_moved_is_priced_as_the_model_it_moved_to(stream: bool, tmp_path: Path) -> None:
    usage = count(451, 21, prompt_cache_hit_tokens=384, prompt_cache_miss_tokens=67)
    cost = (await ask(tmp_path, "deepseek/deepseek-chat", usage, stream=stream, model="deepseek-v4-flash")).cost
    assert cost is not None
    assert cost.source == f"{SOURCE}: deepseek-v4-flash"


async def test_a_configured_price_is_that_of_the_entry_whatever_answered(tmp_path: Path) -> None:
    price = {"input_usd_per_mtok": 2, "output_usd_per_mtok": 10}
    models = {"mine": {"provider": "up", "id": "my-deployment", "kind": "chat", "price": price}}
    body = {"model": "gpt-4.1-mini", "choices": [build_choice()], "usage": count(1000, 100)}
    async with (
        serve_answers(answer_with(body)) as server,
        open_observed_dispatcher(server.url, tmp_path, more={"models": models}, prices="azure") as opened,
    ):
        mine, other = await opened.run("mine", "up/any")
    assert mine.cost is not None
    assert other.cost is not None
    assert (mine.cost.usd, mine.cost.source) == (0.003, "providers.json")
    assert other.cost.source == f"{SOURCE}: gpt-4.1-mini"


PRINT_IMPORTING_THREAD = """
import sys, threading

def note(event, details):
    if event == "import" and details[0] == "genai_prices":
        print("imported by", threading.current_thread().name, file=sys.stderr)

sys.addaudithook(note)
from fanout.cli.main import main
main()
"""
"""`fanout`, with a line for each import of the prices."""


async def test_prices_are_loaded_in_a_thread_by_the_first_call_that_needs_them(tmp_path: Path) -> None:
    body = {"model": "gpt-4.1-mini", "choices": [build_choice()], "usage": count(1000, 100)}
    ask_json = ("ask", "hi", "-m", "up/gpt-4.1-mini", "--json")
    async with serve_answers(answer_with(body)) as server:
        config = str(write_providers_file(server.url, tmp_path, prices="openai"))
        result = await run_command([sys.executable, "-c", PRINT_IMPORTING_THREAD, *ask_json, "--config", config])

    assert json.loads(result.out)["choices"][0]["cost_source"] == f"{SOURCE}: gpt-4.1-mini"
    assert result.err.startswith("imported by setup")
    assert "imported by MainThread" not in result.err
