"""Every sampling parameter against a brute-force computation over the whole vocabulary."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.providers.ngram.decoding import BiasedDistribution, Chooser, Decoding
from fanout.providers.ngram.language_model import Distribution
from tests.support.ngram_reference import assert_drawn_from, decode_probabilities, pydoc_model

PROMPT = "The value of the expression is the"
PROMPTS = ("", " the", PROMPT, " an instance of", " xylophone", "If the object")


def find_distribution(prompt: str = PROMPT, order: int = 3) -> Distribution:
    return pydoc_model().after(pydoc_model().encode(prompt), order)


def list_probabilities(given: Distribution) -> dict[int, float]:
    return {token: given.probability(token) for token in range(len(pydoc_model().tokens))}


def count_draws(decoding: Decoding, given: Distribution, count: int = 20_000, prompt: str = "") -> Counter[int]:
    model, random = pydoc_model(), Random(11)
    encoded = model.encode(prompt)
    return Counter(Chooser(model, decoding, encoded, random).choose(given) for _ in range(count))


def compute_logit(given: Distribution, token: int) -> float:
    return math.log(given.probability(token))


def find_likeliest(count: int, given: Distribution) -> list[int]:
    return [token for _, token in given.leaders(count)]


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.sampled_from(PROMPTS),
    order=st.sampled_from((2, 3, 5)),
    temperature=st.sampled_from((0.1, 0.5, 1.0, 2.0)),
    top_k=st.sampled_from((0, 1, 2, 7, 50, 1000, 10**6)),
    top_p=st.sampled_from((0.0, 0.1, 0.4, 0.5, 0.9, 0.99, 1.0)),
    bias=st.dictionaries(st.integers(0, 60), st.sampled_from((-100.0, -5.0, 3.0, 100.0)), max_size=8),
    banned=st.integers(0, 40),
)
def test_no_choice_falls_outside_top_k_and_top_p(
    prompt: str, order: int, temperature: float, top_k: int, top_p: float, bias: dict[int, float], banned: int
) -> None:
    given = find_distribution(prompt, order)
    bias = dict.fromkeys(find_likeliest(banned, given), -100.0) | bias
    decoding = Decoding(temperature, top_k, top_p, logit_bias=bias)
    assert set(count_draws(decoding, given, 30)) <= set(decode_probabilities(list_probabilities(given), decoding))


@settings(max_examples=40, deadline=None)
@given(
    prompt=st.sampled_from(PROMPTS),
    order=st.sampled_from((2, 3, 5)),
    temperature=st.sampled_from((0.5, 1.0, 2.0)),
    bias=st.dictionaries(st.integers(0, 300), st.sampled_from((-100.0, -2.0, 3.0)), max_size=8),
)
def test_the_weight_before_a_token_is_that_of_all_likelier_ones(
    prompt: str, order: int, temperature: float, bias: dict[int, float]
) -> None:
    """`top_p` depends on this weight; the brute force adds up the whole vocabulary."""
    model, given = pydoc_model(), find_distribution(prompt, order)
    tempered = model.temper(given, temperature)
    whole = (
        BiasedDistribution(given, tempered, temperature, {t: compute_logit(given, t) + b for t, b in bias.items()})
        if bias
        else tempered
    )
    before = 0.0
    for rank, (token, chance) in enumerate(
        decode_probabilities(list_probabilities(given), Decoding(temperature, logit_bias=bias)).items()
    ):
        if rank < 5 or rank % 97 == 0:
            assert whole.weight_before(token) / whole.total == pytest.approx(before, rel=1e-9, abs=1e-12)
        before += chance


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(),
        Decoding(temperature=0.5),
        Decoding(temperature=2.0),
        Decoding(top_k=5),
        Decoding(top_p=0.7),
        Decoding(top_p=0.3),
        Decoding(temperature=2.0, top_p=0.3),
        Decoding(temperature=2.0, top_p=0.45, logit_bias=dict.fromkeys(range(500, 1500), 0.1)),
        Decoding(temperature=0.5, top_k=20, top_p=0.8),
        Decoding(temperature=2.0, top_p=0.95),
        Decoding(logit_bias={0: -100.0, 1: 4.0, 2: -1.0, 300: 6.0}),
        Decoding(logit_bias={0: -100.0, 1: 4.0, 2: -1.0, 300: 6.0}, temperature=0.5, top_p=0.9),
        Decoding(repetition_penalty=1.3),
        Decoding(repetition_penalty=0.7, temperature=2.0),
    ],
    ids=lambda decoding: str(decoding)[:150],
)
def test_choices_follow_the_exact_distribution(decoding: Decoding) -> None:
    model, given = pydoc_model(), find_distribution()
    prompt = [token for token in model.encode(PROMPT) if token is not None]
    expected = decode_probabilities(
        list_probabilities(given), decoding, prompt=prompt if decoding.repetition_penalty != 1 else ()
    )
    count = 20_000 if decoding.top_p == 1 and not decoding.top_k else 5_000 if len(decoding.logit_bias) < 100 else 300
    assert_drawn_from(count_draws(decoding, given, count, PROMPT), expected)


def test_choices_are_exact_where_almost_all_probability_is_banned() -> None:
    """At temperature 0.01 the other tokens weigh so little beside the 5 likeliest that a difference of sums is noise."""
    given = find_distribution(order=2)
    level = compute_logit(given, find_likeliest(6, given)[-1])
    bias = {token: level - compute_logit(given, token) for token in find_likeliest(5, given)}
    for top_p in (1.0, 0.8):
        decoding = Decoding(temperature=0.01, top_p=top_p, logit_bias=bias)
        assert_drawn_from(count_draws(decoding, given, 300), decode_probabilities(list_probabilities(given), decoding))


def test_choices_reach_the_rarest_tokens_where_all_others_are_banned() -> None:
    """They all have the same probability, so the first few hundred of them are not enough."""
    given = find_distribution(order=2)
    chances = list_probabilities(given)
    rarest = [token for token, p in chances.items() if p < 1.001 * min(chances.values())]
    decoding = Decoding(temperature=0.2, logit_bias=dict.fromkeys(chances.keys() - rarest, -100.0))
    drawn = count_draws(decoding, given, 100)
    assert 25 < sum(drawn[token] for token in rarest[: len(rarest) // 2]) < 75
    assert drawn.keys() <= set(rarest)


def test_temperature_0_takes_the_likeliest_token() -> None:
    for prompt in ("", " the", PROMPT, " xylophone"):
        assert set(count_draws(Decoding(temperature=0), find_distribution(prompt), 20)) == set(
            find_likeliest(1, find_distribution(prompt))
        )


def test_a_bias_of_minus_100_bans_and_of_100_forces() -> None:
    given = find_distribution()
    first, second = find_likeliest(2, given)
    assert count_draws(Decoding(temperature=0, logit_bias={first: -100.0}), given, 1) == {second: 1}
    assert count_draws(Decoding(temperature=2.0, logit_bias={first: -100.0}), given, 2_000)[first] == 0
    assert count_draws(Decoding(temperature=2.0, logit_bias={3000: 100.0}), given, 2_000) == {3000: 2_000}


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(frequency_penalty=0.4),
        Decoding(presence_penalty=1.5),
        Decoding(presence_penalty=-1.0, frequency_penalty=0.8),
        Decoding(repetition_penalty=1.4),
        Decoding(repetition_penalty=1.2, frequency_penalty=0.3, presence_penalty=0.2, logit_bias={0: -2.0, 5: 1.5}),
    ],
    ids=str,
)
def test_penalties_count_what_was_generated(decoding: Decoding) -> None:
    """Greedy, so that a single wrong token shows; each step is compared with the formula."""
    model, greedy = pydoc_model(), replace(decoding, temperature=0)
    prompt = [token for token in model.encode(PROMPT) if token is not None]
    chooser, generated = Chooser(model, greedy, prompt, Random(1)), list[int]()
    unchanged = Chooser(model, Decoding(temperature=0), prompt, Random(1))
    plain = list[int]()
    for _ in range(40):
        given = model.after([*prompt, *generated], 3)
        repeated = prompt if decoding.repetition_penalty != 1 else ()
        expected = decode_probabilities(list_probabilities(given), greedy, generated, repeated)
        generated.append(chooser.choose(given))
        plain.append(unchanged.choose(model.after([*prompt, *plain], 3)))
        assert generated[-1] in expected
    assert generated != plain
