"""Figures that providers send, in every format and whatever they are: counts, costs and log probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from fanout.core.schema import Call, Completion
from fanout.core.usage import MAX_USD, Usage, total_tokens
from fanout.dispatch import pricing
from fanout.providers.anthropic.adapter import Anthropic
from fanout.providers.bedrock.adapter import Bedrock
from fanout.providers.cohere import Cohere
from fanout.providers.gemini.adapter import Gemini
from fanout.providers.mapping.json_fields import MAX_COUNT, as_count, as_number
from fanout.providers.mapping.rate_headers import REQUESTS, TOKENS, parse_rate_headers
from fanout.providers.mapping.retry_after import MAX_DELAY_S, find_retry_after_s
from fanout.providers.ollama import Ollama
from fanout.providers.openai.adapter import OpenAi
from fanout.providers.scale import Scale
from fanout.providers.scale_llm_engine import LlmEngine
from fanout.providers.transport.http import HttpProvider
from tests.support.provider_calls import build_adapter, build_call, decode


@dataclass(frozen=True, slots=True)
class Format:
    """A wire format: an answer with a given usage, and the fields that its usage may have."""

    provider: HttpProvider
    call: Call
    answer: Callable[[dict[str, Any]], dict[str, Any]]
    fields: Mapping[str, Any]


ABSURD: list[Any] = [-1, True, 2**53, 2**63, 2**70, 10**400, -(10**400), 0.5, 3.0, 1e300, "7", None, [], [7], {}, {"tokens": 7}]
FIGURES: Any = st.integers(0, 50) | st.integers(0, MAX_COUNT) | st.sampled_from(ABSURD)
COSTS: Any = st.floats(0, 5) | st.sampled_from([*ABSURD, 1e9, 1e-30, -0.0])
ONE_HOUR = {"ephemeral_1h_input_tokens": FIGURES, "ephemeral_5m_input_tokens": FIGURES}


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return objects with some of these fields, or something else."""
    return st.fixed_dictionaries({}, optional=fields) | st.sampled_from(ABSURD)


MODALITIES = st.lists(
    some(modality=st.sampled_from(["TEXT", "AUDIO", "IMAGE", "VIDEO", "DOCUMENT", "SMELL", 5]), tokenCount=FIGURES), max_size=3
) | st.sampled_from(ABSURD)
DETAILS = some(
    **dict.fromkeys(
        ["cached_tokens", "audio_tokens", "image_tokens", "video_tokens", "cache_write_tokens", "reasoning_tokens"], FIGURES
    ),
    cached_tokens_details=some(audio_tokens=FIGURES),
    cache_creation=some(**ONE_HOUR),
)


def build_format(make: Any, answer: Callable[[dict[str, Any]], dict[str, Any]], *, text: bool = False, **fields: Any) -> Format:
    provider: HttpProvider = build_adapter(make, "http://127.0.0.1:9/v1")
    return Format(provider, build_call(provider, "m", prompt="Once" if text else None), answer, fields)


FORMATS = {
    "openai": build_format(
        OpenAi,
        lambda usage: {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": usage},
        **dict.fromkeys(
            [
                *("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "num_cached_tokens"),
                *("prompt_cache_hit_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "reasoning_tokens"),
                *("citation_tokens",),
            ],
            FIGURES,
        ),
        prompt_tokens_details=DETAILS,
        completion_tokens_details=DETAILS,
        cache_creation=some(**ONE_HOUR),
        cost=COSTS | some(total_cost=COSTS),
        cost_in_usd_ticks=FIGURES,
        is_byok=st.booleans() | st.sampled_from(ABSURD),
        cost_details=some(upstream_inference_cost=COSTS),
    ),
    "anthropic": build_format(
        Anthropic,
        lambda usage: {
            "type": "message",
            "content": [{"type": "text", "text": "Hi"}],
            "stop_reason": "end_turn",
            "usage": usage,
        },
        **dict.fromkeys(
            ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "service_tier"], FIGURES
        ),
        cache_creation=some(**ONE_HOUR),
        output_tokens_details=some(thinking_tokens=FIGURES),
        server_tool_use=some(web_search_requests=FIGURES),
        cost=COSTS,
    ),
    "gemini": build_format(
        Gemini,
        lambda usage: {
            "candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}],
            "usageMetadata": usage,
        },
        **dict.fromkeys(
            [
                *("promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount"),
                *("cachedContentTokenCount", "toolUsePromptTokenCount"),
            ],
            FIGURES,
        ),
        promptTokensDetails=MODALITIES,
        candidatesTokensDetails=MODALITIES,
        cacheTokensDetails=MODALITIES,
        toolUsePromptTokensDetails=MODALITIES,
    ),
    "bedrock": build_format(
        Bedrock,
        lambda usage: {"output": {"message": {"content": [{"text": "Hi"}]}}, "stopReason": "end_turn", "usage": usage},
        **dict.fromkeys(["inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"], FIGURES),
        cacheDetails=st.lists(some(ttl=st.sampled_from(["1h", "5m", 5]), inputTokens=FIGURES), max_size=3),
    ),
    "cohere": build_format(
        Cohere,
        lambda usage: {"message": {"content": [{"type": "text", "text": "Hi"}]}, "finish_reason": "COMPLETE", "usage": usage},
        tokens=some(input_tokens=FIGURES, output_tokens=FIGURES),
        billed_units=some(input_tokens=COSTS, output_tokens=FIGURES, search_units=FIGURES),
        cached_tokens=FIGURES,
    ),
    "ollama": build_format(
        Ollama,
        lambda usage: {"message": {"content": "Hi"}, "done": True, "done_reason": "stop", **usage},
        prompt_eval_count=FIGURES,
        eval_count=FIGURES,
        total_duration=FIGURES,
    ),
    "scale": build_format(
        Scale,
        lambda usage: {"completion": {"text": "Hi", "finish_reason": "stop"}, "token_usage": usage},
        text=True,
        prompt=FIGURES,
        completion=FIGURES,
        total=FIGURES,
    ),
    "scale-llm-engine": build_format(
        LlmEngine,
        lambda usage: {"request_id": "r", "output": {"text": "Hi", **usage}},
        text=True,
        num_prompt_tokens=FIGURES,
        num_completion_tokens=FIGURES,
    ),
}
PRICED = [("openai", "gpt-5"), ("google", "gemini-2.5-flash"), ("anthropic", "claude-sonnet-4-5"), ("perplexity", "sonar-pro")]


def is_count(figure: object) -> bool:
    return type(figure) is int and 0 <= figure <= MAX_COUNT


def check_usage(usage: Usage) -> None:
    figures = (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.cache_write_tokens)
    assert all(figure is None or is_count(figure) for figure in (*figures, usage.reasoning_tokens))
    stored = (usage.cached_input_tokens or 0) + (usage.cache_write_tokens or 0)
    assert stored <= (usage.input_tokens or 0)
    assert (usage.reasoning_tokens or 0) <= (usage.output_tokens or 0)
    assert all(is_count(figure) for figure in (usage.priced_apart or {}).values())
    assert all(type(figure) is float and 0 <= figure <= MAX_COUNT for figure in (usage.billed or {}).values())
    assert usage.reported_cost_usd is None or 0 <= usage.reported_cost_usd < MAX_USD
    total = total_tokens(usage.input_tokens, usage.output_tokens)
    assert (total is None) == (usage.input_tokens is None or usage.output_tokens is None)
    assert total is None or total >= (usage.input_tokens or 0)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_any_usage_is_read_without_a_fault_and_its_parts_never_exceed_their_whole(name: str, data: st.DataObject) -> None:
    wire = FORMATS[name]
    raw = data.draw(st.fixed_dictionaries({}, optional=wire.fields))
    usage = decode(wire.provider, wire.call, 200, wire.answer(raw)).usage
    if usage is not None:
        check_usage(usage)
    for provider, model in PRICED:
        cost = pricing.compute_cost(usage, None, provider, model, None)
        assert cost is None or (math.isfinite(cost.usd) and cost.usd >= 0)


LIFETIMES = {"ephemeral_1h_input_tokens": 30, "ephemeral_5m_input_tokens": 10}


@pytest.mark.parametrize(
    ("name", "raw", "usage"),
    [
        (
            "anthropic",
            {"input_tokens": 5, "output_tokens": 7, "cache_creation_input_tokens": 40, "cache_creation": LIFETIMES},
            Usage(45, 7, None, 40, priced_apart={"cache_write_1h_tokens": 30}),
        ),
        (
            "anthropic",
            {"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 3, "cache_creation": LIFETIMES},
            Usage(48, 7, 3, 40, priced_apart={"cache_write_1h_tokens": 30}),
        ),
        (
            "anthropic",
            {"input_tokens": 5, "output_tokens": 7, "server_tool_use": {"web_search_requests": 2}, "speed": "fast"},
            Usage(5, 7, priced_apart={"web_searches": 2}, service_tier="fast"),
        ),
        (
            "bedrock",
            {
                "inputTokens": 5,
                "outputTokens": 7,
                "cacheWriteInputTokens": 40,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 30}, {"ttl": "5m", "inputTokens": 10}],
            },
            Usage(45, 7, None, 40, priced_apart={"cache_write_1h_tokens": 30}),
        ),
        (
            "gemini",
            {
                "promptTokenCount": 100,
                "cachedContentTokenCount": 60,
                "candidatesTokenCount": 9,
                "totalTokenCount": 109,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 40}, {"modality": "AUDIO", "tokenCount": 60}],
                "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 60}],
                "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 9}],
                "serviceTier": "FLEX",
            },
            Usage(
                100,
                9,
                60,
                priced_apart={"input_audio_tokens": 60, "cache_audio_read_tokens": 0, "output_image_tokens": 9},
                service_tier="flex",
            ),
        ),
        (
            "cohere",
            {"tokens": {"input_tokens": 5, "output_tokens": 7}, "billed_units": {"input_tokens": True, "output_tokens": -1}},
            Usage(5, 7),
        ),
    ],
)
def test_what_may_have_a_price_of_its_own_is_read_in_every_format(name: str, raw: dict[str, Any], usage: Usage) -> None:
    found = decode_with(name, FORMATS[name].answer(raw)).usage
    assert found is not None
    assert replace(found, raw=None) == usage


@given(value=st.integers() | st.floats() | st.booleans() | st.text(max_size=3) | st.none())
@example(value=10**400)
@example(value=-(10**400))
@example(value=2**53)
def test_a_number_is_read_only_where_it_can_be_a_figure(value: Any) -> None:
    number, count = as_number(value), as_count(value)
    assert number is None or (type(number) is float and number == value and abs(number) <= MAX_COUNT)
    assert count is None or (type(count) is int and count == value and 0 <= count <= MAX_COUNT)
    if type(value) is int and abs(value) <= MAX_COUNT:
        assert number == value
        assert value < 0 or count == value


# Log probabilities


def with_openai(value: Any) -> Completion:
    item = {"token": "Hi", "logprob": value, "top_logprobs": [{"token": "Hi", "logprob": value}], "bytes": [value]}
    choice = {"index": value, "message": {"content": "Hi"}, "finish_reason": "stop", "logprobs": {"content": [item]}}
    return decode_with("openai", {"choices": [choice]})


def with_legacy(value: Any) -> Completion:
    logprobs = {"tokens": ["Hi"], "token_logprobs": [value], "top_logprobs": [{"Hi": value}], "text_offset": [value]}
    return decode_with("openai", {"choices": [{"index": value, "text": "Hi", "finish_reason": "stop", "logprobs": logprobs}]})


def with_gemini(value: Any) -> Completion:
    token = {"token": "Hi", "tokenId": value, "logProbability": value}
    result = {"chosenCandidates": [token], "topCandidates": [{"candidates": [token]}]}
    candidate = {"index": value, "content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP", "logprobsResult": result}
    return decode_with("gemini", {"candidates": [candidate]})


def with_cohere(value: Any) -> Completion:
    answer = FORMATS["cohere"].answer({})
    return decode_with("cohere", {**answer, "logprobs": [{"text": "Hi", "token_ids": [value], "logprobs": [value]}]})


def with_ollama(value: Any) -> Completion:
    answer = FORMATS["ollama"].answer({"logprobs": [{"token": "Hi", "logprob": value, "top_logprobs": [{"token": "a"}]}]})
    return decode_with("ollama", answer)


def with_engine(value: Any) -> Completion:
    output = {"text": "Hi", "tokens": [{"token": "Hi", "log_prob": value}]}
    return decode_with("scale-llm-engine", {"request_id": "r", "output": output})


def decode_with(name: str, body: dict[str, Any]) -> Completion:
    return decode(FORMATS[name].provider, FORMATS[name].call, 200, body)


@pytest.mark.parametrize(
    "value", [2**53, 2**64, 2**70, -(2**70), 10**400, -(10**400), 1e300, True, "0"], ids=lambda value: str(value)[:20]
)
@pytest.mark.parametrize("read", [with_openai, with_legacy, with_gemini, with_cohere, with_ollama, with_engine])
def test_an_absurd_log_probability_is_unknown_and_fails_no_answer(read: Callable[[Any], Completion], value: Any) -> None:
    (choice,) = read(value).choices
    assert choice.logprobs is not None
    assert [(token.token, token.logprob) for token in choice.logprobs] == [("Hi", None)]
    assert all(number is None for token in choice.logprobs for _, number in token.top)


# Times and limits


@pytest.mark.parametrize(
    "text", ["9007199254740993", "1180591620717411303424", "9" * 400, "1e300", "1e400", "-1", "nan", "True"]
)
def test_an_absurd_delay_is_none(text: str) -> None:
    """`Retry-After` in seconds and milliseconds, the body's delay, and a sentence."""
    delays = [
        find_retry_after_s(CIMultiDict({"Retry-After": text}), {}, ""),
        find_retry_after_s(CIMultiDict({"retry-after-ms": text}), {}, ""),
        find_retry_after_s(CIMultiDict({"Retry-After": f"Fri, 20 Nov {text} 10:00:30 GMT"}), {}, ""),
        find_retry_after_s(CIMultiDict(), {"details": [{"retryDelay": f"{text}s"}, {"retryDelay": 2**70}]}, ""),
        find_retry_after_s(CIMultiDict(), {}, f"Please try again in {text} seconds."),
    ]
    assert all(delay is None or 0 <= delay <= MAX_DELAY_S for delay in delays)
    assert delays[0] is None


@pytest.mark.parametrize(
    "text", ["9007199254740993", "1180591620717411303424", "9" * 400, "1e300", "1e400", "-1", "nan", "True"]
)
def test_an_absurd_limit_is_none(text: str) -> None:
    for names in (*REQUESTS, *TOKENS):
        assert parse_rate_headers(CIMultiDict(dict.fromkeys(names, text))) is None
