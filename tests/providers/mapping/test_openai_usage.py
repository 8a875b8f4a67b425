"""Usage in OpenAI's format, by every name that hosts give its parts."""

from __future__ import annotations

from typing import Any

import pytest

from fanout.core.usage import Usage
from fanout.providers.mapping.json_fields import MAX_COUNT
from fanout.providers.mapping.openai_usage import parse_usage
from tests.support.openai_format import build_choice, build_chunk, build_openai, decode_answer, encode_chunks
from tests.support.provider_calls import build_call, expect_answer, replay_stream


def count(prompt: int | None = 20, completion: float | None = 5, total: float | None = None, **more: Any) -> dict[str, Any]:
    figures = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total, **more}
    return {name: value for name, value in figures.items() if value is not None}


def parse(raw: Any) -> Usage:
    usage = parse_usage(raw)
    assert usage is not None
    return usage


def simplify(usage: Usage) -> Usage:
    """Return the counts alone."""
    return Usage(
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        priced_apart=usage.priced_apart,
    )


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}, Usage(3, 0)),
        ({"prompt_tokens": 1, "completion_tokens": 2.0}, Usage(1, 2)),
        ({"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}, Usage(3, None, 2)),
        ({"prompt_tokens": 3, "prompt_tokens_details": None, "prompt_cache_hit_tokens": 2}, Usage(3, None, 2)),
        ({"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 1}}, Usage(3, None, 0, 1)),
        (count(completion_tokens_details={"reasoning_tokens": 4}), Usage(20, 5, None, None, 4)),
    ],
    ids=str,
)
def test_usage_is_read(raw: Any, usage: Usage) -> None:
    """Not reported is null, never 0; the provider's own object is kept."""
    found = decode_answer({"choices": [build_choice()], "usage": raw}).usage
    assert found is not None
    assert found.raw == raw
    assert simplify(found) == usage


@pytest.mark.parametrize(
    "raw", [{}, None, [1], "7", {"prompt_tokens": "1", "completion_tokens": -2, "cost": {"total": 1}}, {"prompt_tokens": True}]
)
def test_what_reports_nothing_is_no_usage(raw: Any) -> None:
    assert decode_answer({"choices": [build_choice()], "usage": raw}).usage is None


@pytest.mark.parametrize(
    "names",
    [
        {"num_cached_tokens": 9},
        {"cached_tokens": 9},
        {"prompt_cache_hit_tokens": 9},
        {"cache_read_input_tokens": 9},
        {"prompt_tokens_details": {"cached_tokens": 9}},
        {"prompt_token_details": {"cached_tokens": 9}},
        {"input_tokens_details": {"cached_tokens": 9}},
        {"prompt_tokens_details": {"cached_tokens": 0}, "num_cached_tokens": 9},  # the format's own field is only filled
        {"cached_tokens": "9", "num_cached_tokens": 9},
    ],
    ids=str,
)
def test_cached_tokens_are_read_under_every_name(names: dict[str, Any]) -> None:
    assert parse(count(**names)).cached_input_tokens == 9


def test_no_cached_tokens_is_a_statement() -> None:
    assert parse(count(cached_tokens=0)).cached_input_tokens == 0
    assert parse(count()).cached_input_tokens is None


@pytest.mark.parametrize(
    "names",
    [
        {"cache_creation_input_tokens": 9},
        {"prompt_tokens_details": {"cache_creation_input_tokens": 9}},
        {"prompt_tokens_details": {"cache_write_tokens": 9}},
        {"prompt_tokens_details": {"cached_tokens": 0}, "cache_creation_input_tokens": 9},
    ],
    ids=str,
)
def test_cache_writes_are_read_under_every_name(names: dict[str, Any]) -> None:
    assert parse(count(**names)).cache_write_tokens == 9


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (count(66, 6, 100), Usage(66, 34, None, None, 28)),
        (count(9, 5, 34, completion_tokens_details={"reasoning_tokens": 20}), Usage(9, 25, None, None, 20)),
        # No total shows it, but what is more than the whole is no part of it.
        (count(20, 5, None, reasoning_tokens=70), Usage(20, 75, None, None, 70)),
        (count(20, 5, 25, completion_tokens_details={"reasoning_tokens": 70}), Usage(20, 75, None, None, 70)),
        (count(20, 70, 90, completion_tokens_details={"reasoning_tokens": 70}), Usage(20, 70, None, None, 70)),
    ],
    ids=str,
)
def test_thinking_outside_of_the_completion_is_added_to_it(raw: Any, usage: Usage) -> None:
    assert simplify(parse(raw)) == usage


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (
            count(9, 20, 404, prompt_tokens_details={"cached_tokens": 0, "audio_tokens": 375}),
            Usage(384, 20, 0, priced_apart={"input_audio_tokens": 375}),
        ),
        (
            count(9, 20, 434, prompt_tokens_details={"audio_tokens": 375}, completion_tokens_details={"reasoning_tokens": 30}),
            Usage(384, 50, None, None, 30, priced_apart={"input_audio_tokens": 375}),
        ),
        (  # audio that the input holds already
            count(400, 20, 450, prompt_tokens_details={"audio_tokens": 375}),
            Usage(400, 50, None, None, 30, priced_apart={"input_audio_tokens": 375}),
        ),
        (count(5, 20, 1025, cache_read_input_tokens=1000), Usage(1005, 20, 1000)),
        (count(5, 20, 1225, cache_read_input_tokens=1000, cache_creation_input_tokens=200), Usage(1205, 20, 1000, 200)),
        (count(5, 20, 25, cache_read_input_tokens=1000), Usage(5, 20)),  # the total shows that it is beside nothing
    ],
    ids=str,
)
def test_what_stands_in_the_total_alone_is_input_where_the_input_names_it(raw: Any, usage: Usage) -> None:
    assert simplify(parse(raw)) == usage


@pytest.mark.parametrize(
    ("raw", "apart"),
    [
        (count(prompt_tokens_details={"audio_tokens": 7}), {"input_audio_tokens": 7}),
        (
            count(prompt_tokens_details={"video_tokens": 7, "image_tokens": 0}),
            {"input_video_tokens": 7, "input_image_tokens": 0},
        ),
        (count(completion_tokens_details={"audio_tokens": 3}), {"output_audio_tokens": 3}),
        (count(completion_tokens_details={"image_tokens": 3}), {"output_image_tokens": 3}),
        (
            count(prompt_tokens_details={"audio_tokens": 7, "cached_tokens_details": {"audio_tokens": 2}}),
            {"input_audio_tokens": 7, "cache_audio_read_tokens": 2},
        ),
        (
            count(cache_creation_input_tokens=9, cache_creation={"ephemeral_1h_input_tokens": 4}),
            {"cache_write_1h_tokens": 4},
        ),
        (
            count(prompt_tokens_details={"cache_creation_token_details": {"ephemeral_1h_input_tokens": 4}}),
            {"cache_write_1h_tokens": 4},
        ),
        (count(citation_tokens=11), {"citation_tokens": 11}),
        (count(prompt_tokens_details={"audio_tokens": 0}, completion_tokens_details={"audio_tokens": 0}), None),
        (count(prompt_tokens_details={"audio_tokens": True}, completion_tokens_details={"audio_tokens": -1}), None),
    ],
    ids=str,
)
def test_what_may_have_a_price_of_its_own_is_kept_apart(raw: Any, apart: dict[str, int] | None) -> None:
    assert parse(raw).priced_apart == apart


def test_a_count_beyond_what_numbers_hold_is_unknown() -> None:
    """2^53 − 1 is the last that JavaScript and every column keep exactly."""
    assert parse(count(MAX_COUNT, 5)).input_tokens == MAX_COUNT
    for absurd in (MAX_COUNT + 1, 2**70, 1e300, 10**400):
        usage = parse(count(5, absurd, absurd, cached_tokens=absurd, reasoning_tokens=absurd))
        assert simplify(usage) == Usage(5, None)
    assert parse(count(MAX_COUNT, 5, MAX_COUNT, reasoning_tokens=MAX_COUNT)).output_tokens is None  # the sum


def test_the_last_usage_of_a_stream_stands_and_may_stand_in_its_choice() -> None:
    """Moonshot's stands in the choice that ends."""
    provider = build_openai()
    call = build_call(provider)
    end = build_chunk(None, "stop")
    end["choices"][0]["usage"] = count(20, 5, 25, cached_tokens=10)
    pieces = encode_chunks(build_chunk("Hi"), end)
    assert simplify(expect_usage(replay_stream(provider, call, [pieces]))) == Usage(20, 5, 10)
    pieces = encode_chunks(build_chunk("Hi"), end, {"choices": [], "usage": count(21, 6)})
    assert simplify(expect_usage(replay_stream(provider, call, [pieces]))) == Usage(21, 6)


def expect_usage(result: Any) -> Usage:
    usage = expect_answer(result).usage if not isinstance(result, tuple) else result[1].usage
    assert usage is not None
    return usage


@pytest.mark.parametrize("tier", ["flex", None, 3, ""])
def test_the_tier_of_service_is_read_whole_and_streamed(tier: Any) -> None:
    whole = decode_answer({"choices": [build_choice()], "usage": count(), "service_tier": tier}).usage
    assert whole is not None
    provider = build_openai()
    last = {"choices": [], "usage": count(), "service_tier": tier}
    first = {**build_chunk("Hi"), "model": "m", "service_tier": tier}
    streamed = expect_usage(
        replay_stream(provider, build_call(provider), [encode_chunks(first, build_chunk(None, "stop"), last)])
    )
    assert whole.service_tier == streamed.service_tier == (tier if tier == "flex" else None)
