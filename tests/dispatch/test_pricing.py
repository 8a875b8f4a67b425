"""The cost of a call, by whichever price is known."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from statistics import median

import pytest
from genai_prices import Usage as Units
from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, Provider

from fanout.config.providers_file import PriceRow
from fanout.core.usage import Cost, Usage
from fanout.dispatch import pricing
from tests.support.timing import timed

OWN = pricing.read_price(PriceRow(input_usd_per_mtok=2, output_usd_per_mtok=10))
USAGES = {
    "plain": Usage(1_000, 500),
    "none": Usage(0, 0),
    "cached": Usage(100_000, 1_000, cached_input_tokens=60_000),
    "written": Usage(5_000, 10, cached_input_tokens=1_000, cache_write_tokens=2_000),
    "at the step": Usage(200_000, 1_000),
    "beyond the step": Usage(200_001, 1_000, cached_input_tokens=50_000),
    "long": Usage(900_000, 60_000, cached_input_tokens=100_000, cache_write_tokens=300_000),
    "reasoning": Usage(1_000, 5_000, reasoning_tokens=4_000),
}
MODELS = [
    ("openai", "gpt-4o"),
    ("openai", "gpt-4"),
    ("openai", "gpt-5.5"),  # in steps
    ("anthropic", "claude-sonnet-4-5"),  # in steps
    ("anthropic", "claude-opus-4-8"),
    ("google", "gemini-2.5-pro"),  # in steps
    ("google", "gemini-2.5-flash"),
    ("deepseek", "deepseek-chat"),  # by the hour
    ("groq", "llama-3.3-70b-versatile"),
    ("mistral", "mistral-large-latest"),
    ("x-ai", "grok-4-0709"),
    ("moonshotai", "kimi-k2-0905-preview"),
    ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
    ("cerebras", "llama3.1-8b"),
    ("perplexity", "sonar-pro"),  # a price for each request
    ("perplexity", "sonar-deep-research"),  # reasoning at a price of its own
]


def compute_usd(
    usage: Usage | None, own: pricing.TokenPrices | None = None, provider: str = "openai", model: str = "gpt-4o"
) -> float | None:
    cost = pricing.compute_cost(usage, own, provider, model)
    return cost.usd if cost else None


def list_models() -> Iterator[tuple[Provider, ModelInfo]]:
    return ((provider, model) for provider in get_snapshot().providers for model in provider.models)


def compute_by_genai_prices(usage: Usage, provider: str, model: str) -> float:
    units = Units(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_input_tokens or 0,
        cache_write_tokens=usage.cache_write_tokens or 0,
        output_reasoning_tokens=usage.reasoning_tokens or 0,
    )
    return float(calc_price(units, model, provider_id=provider).total_price)


# Which price


def test_a_reported_cost_beats_a_configured_price_and_that_beats_the_published_one() -> None:
    reported = Usage(1_000_000, 0, reported_cost_usd=0.125)
    assert pricing.compute_cost(reported, OWN, "openai", "gpt-4o") == Cost(0.125, "reported")
    known = Usage(1_000_000, 0)
    assert pricing.compute_cost(known, OWN, "openai", "gpt-4o") == Cost(2.0, "providers.json")
    published = pricing.compute_cost(known, None, "openai", "gpt-4o")
    assert published is not None
    assert published.source == f"{pricing.SOURCE}: gpt-4o"
    assert published.source.startswith("genai-prices 0.")
    assert published.usd not in (0, 2.0)


def test_a_reported_zero_is_zero_and_so_is_a_price_of_zero() -> None:
    assert compute_usd(Usage(reported_cost_usd=0.0)) == 0
    assert compute_usd(Usage(10, 10), pricing.read_price(PriceRow(input_usd_per_mtok=0, output_usd_per_mtok=0))) == 0
    assert compute_usd(Usage(0, 0)) == 0


@pytest.mark.parametrize("usage", [None, Usage(), Usage(5, None), Usage(None, 5)])
@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5.5", "sonar-pro"])
def test_an_unknown_usage_has_an_unknown_cost(usage: Usage | None, model: str) -> None:
    assert compute_usd(usage, OWN) is None
    assert compute_usd(usage, None, "perplexity" if model == "sonar-pro" else "openai", model) is None


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("", "gpt-4o"),
        ("openai", "no-such-model"),
        ("no-such-provider", "gpt-4o"),
        ("openai-lab", "gpt-4o"),  # genai-prices guesses by parts of names: only its own names count
        ("OpenAI", "gpt-4o"),
        ("openrouter", "deepseek/deepseek-chat-v3-0324:free"),  # it has an entry without a price
        ("openai", "text-embedding-3-small"),  # no price for output
    ],
)
def test_an_unknown_price_is_none_and_never_zero(provider: str, model: str) -> None:
    assert compute_usd(Usage(10, 10), None, provider, model) is None


# Arithmetic


@pytest.mark.parametrize(
    ("cached_price", "write_price", "usage", "expected"),
    [
        (None, None, Usage(1000, 100), 3.0),
        (None, None, Usage(1000, 100, cached_input_tokens=900), 3.0),  # as other input
        (0.5, None, Usage(1000, 100, cached_input_tokens=900), 1.65),
        (0, None, Usage(1000, 100, cached_input_tokens=1000), 1.0),
        (None, 4, Usage(1000, 100, cache_write_tokens=500), 4.0),
        (0.5, 4, Usage(1000, 100, cached_input_tokens=200, cache_write_tokens=300), 3.3),
        (0.5, 4, Usage(1000, 100, cached_input_tokens=2000), 1.5),  # more cached than there was: no more than that
        (0.5, 4, Usage(1000, 100, cached_input_tokens=800, cache_write_tokens=800), 2.2),
    ],
)
def test_cached_input_and_cache_writes_have_their_own_prices(
    cached_price: float | None, write_price: float | None, usage: Usage, expected: float
) -> None:
    own = PriceRow(
        input_usd_per_mtok=2, output_usd_per_mtok=10, cached_usd_per_mtok=cached_price, cache_write_usd_per_mtok=write_price
    )
    assert compute_usd(usage, pricing.read_price(own)) == pytest.approx(expected / 1000, abs=1e-12)


@pytest.mark.parametrize("usage", USAGES.values(), ids=USAGES.keys())
@pytest.mark.parametrize(("provider", "model"), MODELS)
def test_a_published_price_gives_the_cost_that_genai_prices_gives(provider: str, model: str, usage: Usage) -> None:
    expected = compute_by_genai_prices(usage, provider, model)
    assert compute_usd(usage, None, provider, model) == pytest.approx(expected, abs=1e-9)
    assert expected > 0 or usage is USAGES["none"]


def test_every_published_price_gives_the_cost_that_genai_prices_gives() -> None:
    """This covers all of its models, so that a new unit or rule in genai-prices shows here."""
    wrong = []
    for provider, model in list_models():
        price = pricing.find_price(provider.id, model.id)
        for name in ("long", "written") if price else ():
            cost = price.price(USAGES[name]) if price else None
            if cost != pytest.approx(compute_by_genai_prices(USAGES[name], provider.id, model.id), abs=1e-9):
                wrong.append((provider.id, model.id, name))
    assert wrong == []


def test_only_prices_that_need_it_are_computed_by_genai_prices() -> None:
    """`TokenPrices` takes 2 µs, genai-prices' own arithmetic 100 (2026-11); 11 of 1,959 models need it."""
    prices = {(provider.id, model.id): pricing.find_price(provider.id, model.id) for provider, model in list_models()}
    known = {name: price.tokens for name, price in prices.items() if price}
    slow = [name for name, tokens in known.items() if tokens is None]
    assert 0 < len(slow) < len(known) / 50
    by_the_hour = {(provider.id, model.id) for provider, model in list_models() if "TimeOfDateConstraint" in repr(model.prices)}
    assert by_the_hour & known.keys() <= set(slow)  # else the first call's hour would hold all day
    assert known["openai", "gpt-4o"] is not None
    assert any(tokens and isinstance(tokens.input, pricing.SteppedPrice) for tokens in known.values())


@timed
def test_a_price_is_found_once_a_day_and_then_costs_microseconds() -> None:
    usage = Usage(1_000, 500, 100)
    assert pricing.find_price("openai", "gpt-5.5") is pricing.find_price("openai", "gpt-5.5")

    def measure_s() -> float:
        start = time.thread_time()
        for _ in range(20):
            pricing.compute_cost(usage, None, "openai", "gpt-5.5")
        return (time.thread_time() - start) / 20

    assert median(measure_s() for _ in range(20)) < 50e-6


def test_a_price_that_changes_on_a_day_changes_on_that_day() -> None:
    """The day is part of the cache's key."""
    provider, model = "openai", "o3"
    found = get_snapshot().find_provider_model(model, None, provider, None)[1]
    inputs = []
    for day in (9, 10):
        price = pricing._find_published_price(provider, model, None, date(2025, 6, day))
        assert price
        assert price.tokens
        assert price.tokens.input == float(vars(found.get_prices(datetime(2025, 6, day, 12, tzinfo=UTC)))["input_mtok"])
        inputs.append(price.tokens.input)
    assert inputs[0] > inputs[1]


def test_the_prices_are_loaded_once() -> None:
    pricing.load_prices()
    start = time.thread_time()
    pricing.load_prices()
    assert time.thread_time() - start < 0.01


def test_billed_tokens_are_priced_where_they_differ_from_the_models() -> None:
    """Cohere's recorded answer: 496 input tokens, 1 of them billed."""
    usage = Usage(input_tokens=496, output_tokens=11, billed={"input_tokens": 1, "output_tokens": 9})
    own = pricing.read_price(PriceRow(input_usd_per_mtok=100, output_usd_per_mtok=1000))
    cost = pricing.compute_cost(usage, own, "", "m")
    assert cost
    assert cost.usd == pytest.approx((1 * 100 + 9 * 1000) / 1e6)


def test_billed_units_without_a_price_make_the_cost_unknown() -> None:
    usage = Usage(input_tokens=496, output_tokens=11, billed={"input_tokens": 1, "output_tokens": 9, "search_units": 1})
    assert compute_usd(usage, OWN) is None
    assert compute_usd(Usage(496, 11, billed={"input_tokens": 1, "output_tokens": 9, "search_units": 0}), OWN) is not None


# What has a price of its own


def apart(whole: int, output: int, cached: int | None = None, written: int | None = None, **units: int) -> Usage:
    return Usage(whole, output, cached, written, priced_apart=units)


@pytest.mark.parametrize(
    ("provider", "model", "usage", "mtok_usd"),
    [
        ("google", "gemini-2.5-flash", apart(125, 35, input_audio_tokens=119), 6 * 0.3 + 119 * 1 + 35 * 2.5),
        ("google", "gemini-2.5-flash-image", apart(4, 1290, output_image_tokens=1290), 4 * 0.3 + 1290 * 30),
        ("openai", "gpt-audio-mini", apart(53, 123, input_audio_tokens=37), 16 * 0.6 + 37 * 10 + 123 * 2.4),
        ("openai", "gpt-audio-mini", apart(53, 123, output_audio_tokens=100), 53 * 0.6 + 23 * 2.4 + 100 * 20),
        (
            "google",
            "gemini-2.5-flash",
            apart(1000, 0, 500, input_audio_tokens=600, cache_audio_read_tokens=400),
            300 * 0.3 + 200 * 1 + 100 * 0.03 + 400 * 0.1,
        ),
        ("anthropic", "claude-opus-4-8", apart(1000, 0, None, 900, cache_write_1h_tokens=400), 100 * 5 + 500 * 6.25 + 400 * 10),
        ("anthropic", "claude-opus-4-8", apart(10, 10, web_searches=3), 10 * 5 + 10 * 25 + 3e6 * 0.01),
        ("openai", "gpt-4o", apart(100, 10, input_image_tokens=90), 100 * 2.5 + 10 * 10),  # images cost there what text does
    ],
)
def test_what_has_a_price_of_its_own_is_counted_at_it(provider: str, model: str, usage: Usage, mtok_usd: float) -> None:
    assert compute_usd(usage, None, provider, model) == pytest.approx(mtok_usd / 1e6, rel=1e-9)


@pytest.mark.parametrize(
    ("provider", "model", "usage"),
    [
        ("openai", "gpt-4o", apart(100, 10, input_audio_tokens=90)),
        ("openai", "gpt-4o", apart(100, 10, output_audio_tokens=1)),
        ("google", "gemini-2.5-flash", apart(100, 10, output_image_tokens=1)),
        ("google", "gemini-2.5-flash", apart(100, 10, input_video_tokens=90)),
        ("google", "gemini-2.5-flash", apart(100, 10, input_other_tokens=90)),
        ("groq", "llama-3.3-70b-versatile", apart(100, 10, None, 50, cache_write_1h_tokens=50)),
        ("groq", "llama-3.3-70b-versatile", apart(100, 10, web_searches=1)),
        ("perplexity", "sonar-deep-research", apart(100, 10, citation_tokens=5)),
        ("google", "gemini-2.5-flash", apart(100, 10, 50, input_audio_tokens=90)),  # how much audio was cached is not known
        ("openai", "gpt-audio-mini", apart(53, 123, input_audio_tokens=54)),  # more than there was
    ],
)
def test_a_part_without_a_known_price_makes_the_cost_unknown_and_never_a_part_of_it(
    provider: str, model: str, usage: Usage
) -> None:
    assert compute_usd(Usage(usage.input_tokens, usage.output_tokens), None, provider, model) is not None
    assert compute_usd(usage, None, provider, model) is None


def test_a_configured_price_is_one_of_text() -> None:
    assert compute_usd(apart(100, 10, input_audio_tokens=90), OWN) is None
    assert compute_usd(apart(100, 10, None, 90, cache_write_1h_tokens=90), OWN) is None
    assert compute_usd(apart(100, 10, input_image_tokens=90), OWN) == pytest.approx((100 * 2 + 10 * 10) / 1e6)


@pytest.mark.parametrize(
    ("provider", "model", "tier", "times"),
    [
        ("openai", "gpt-5", "default", 1),
        ("openai", "gpt-5", "flex", 0.5),
        ("openai", "gpt-5", "priority", 2),
        ("anthropic", "claude-opus-4-8", "fast", 2),
        ("anthropic", "claude-opus-4-8", "standard", 1),
        ("groq", "llama-3.3-70b-versatile", "on_demand", 1),
        ("openai", "gpt-4o", "scale", None),
        ("aws", "anthropic.claude-sonnet-4-5-20250929-v1:0", "flex", None),
    ],
)
def test_a_tier_of_service_has_its_own_price_or_none(provider: str, model: str, tier: str, times: float | None) -> None:
    standard = compute_usd(Usage(1000, 100), None, provider, model)
    found = compute_usd(Usage(1000, 100, service_tier=tier), None, provider, model)
    assert standard
    assert found == (None if times is None else pytest.approx(standard * times))


# By the model that answered


@pytest.mark.parametrize(
    ("provider", "model", "answered", "source"),
    [
        ("azure", "my-deployment", "gpt-4.1-mini-2025-04-14", "gpt-4.1-mini"),
        ("deepseek", "deepseek-chat", "deepseek-v4-flash", "deepseek-v4-flash"),
        ("openai", "gpt-4o", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("openai", "gpt-4o", None, "gpt-4o"),
        ("openai", "gpt-4o", "", "gpt-4o"),
        ("perplexity", "sonar", "sonar-2026-11-01", "sonar"),  # a dated name of the one in the request
    ],
)
def test_the_price_is_that_of_the_model_that_answered_and_its_source_names_it(
    provider: str, model: str, answered: str | None, source: str
) -> None:
    cost = pricing.compute_cost(Usage(1000, 1000), None, provider, model, answered)
    assert cost
    assert cost.source == f"{pricing.SOURCE}: {source}"
    expected = compute_by_genai_prices(Usage(1000, 1000), provider, source)
    assert cost.usd == pytest.approx(expected)


@pytest.mark.parametrize("answered", ["m-1", "gpt-4o-nova", "x" * 10_000])
def test_a_model_that_answered_in_place_of_another_is_never_priced_as_that_one(answered: str) -> None:
    known = pricing.find_price("azure", answered)
    cost = pricing.compute_cost(Usage(10, 10), None, "azure", "gpt-4", answered)
    assert cost is None or (known and cost.source.endswith(known.model.id))


def test_names_that_answers_make_up_are_not_kept_for_ever() -> None:
    kept = len(get_snapshot()._lookup_cache)
    for number in range(100):
        pricing.compute_cost(Usage(10, 10), None, "openai", "gpt-4o", f"gpt-4o-{number}")
    assert len(get_snapshot()._lookup_cache) == kept
    assert pricing._find_published_price.cache_info().maxsize == 4096
