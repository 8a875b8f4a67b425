"""The model against its formula, on a toy text and on the text it is really trained on."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.providers.ngram.language_model import END_OF_TEXT, LanguageModel, tokenize
from tests.support.ngram_reference import Reference, assert_drawn_from, pydoc_model, pydoc_reference

TOY = ("the cat sat on the mat. the cat ran.", "a dog sat on the cat\n\na dog ran on.")
CONTEXTS = ("", "The", " the", "The value of the", " is an instance of", "it is\n\n", " xylophone", " xylophone of the", ".")


def to_ids(model: LanguageModel, text: str) -> list[int | None]:
    return [model.end, *model.encode(text)]


@given(st.text())
def test_the_tokens_of_a_text_joined_are_the_text(text: str) -> None:
    assert "".join(tokenize(text)) == text


def test_words_keep_the_space_before_them() -> None:
    tokens = ["It's", " well-known", " since", " 3.8", ".", "\n\n", "So", " (", "there", ")."]
    assert list(tokenize("It's well-known since 3.8.\n\nSo (there).")) == tokens


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("context", ["", "the", "the cat", "a dog sat on the", "cat ran", "on the cat\n\na"])
def test_probabilities_follow_the_formula_on_a_toy_text(order: int, context: str) -> None:
    model, reference = LanguageModel(TOY), Reference(TOY)
    distribution = model.after(to_ids(model, context), order)
    expected = reference.probabilities([END_OF_TEXT, *tokenize(context)], order)
    assert {token: distribution.probability(model.ids[token]) for token in expected} == pytest.approx(expected)


@pytest.mark.parametrize("order", [2, 3, 5])
def test_probabilities_follow_the_formula_anywhere_in_the_real_text(order: int) -> None:
    model, reference, random = pydoc_model(), pydoc_reference(), Random(1)
    for _ in range(10):
        at = random.randrange(5, len(reference.tokens))
        context = reference.tokens[at - 5 : at]
        expected = reference.probabilities(context, order)
        distribution = model.after([model.ids[token] for token in context], order)
        assert [distribution.probability(model.ids[token]) for token in expected] == pytest.approx(list(expected.values()))


@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("context", CONTEXTS)
def test_probabilities_of_the_whole_vocabulary_sum_to_one(order: int, context: str) -> None:
    distribution = pydoc_model().after(to_ids(pydoc_model(), context), order)
    assert math.fsum(map(distribution.probability, range(len(pydoc_model().tokens)))) == pytest.approx(1, abs=1e-12)


def test_the_model_remembers_nothing_across_an_unknown_word() -> None:
    model = pydoc_model()
    assert model.after(model.encode("The value of xylophone the"), 5) is model.after(model.encode(" the"), 5)
    assert model.after(model.encode("The value of xylophone"), 5) is model.after([], 5)


def test_an_order_sees_one_token_less_than_its_number() -> None:
    model = pydoc_model()
    assert model.after(model.encode(" value of the"), 2) is model.after(model.encode(" the"), 5)
    assert model.after(model.encode(" value of the"), 3) is model.after(model.encode(" of the"), 5)
    assert model.after(model.encode(" value of the"), 4) is not model.after(model.encode(" of the"), 5)


def test_ids_are_ordered_from_the_most_frequent_token_down() -> None:
    model, counts = LanguageModel(TOY), Reference(TOY).counts[()]
    assert [counts[token] for token in model.tokens] == sorted(counts.values(), reverse=True)


@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("count", [1, 5, 40, 10**6])
def test_leaders_are_the_likeliest_tokens_of_all(order: int, context: str, count: int) -> None:
    distribution = pydoc_model().after(to_ids(pydoc_model(), context), order)
    without = {token for _, token in distribution.leaders(3)[::2]}
    ranked = sorted((-distribution.probability(token), token) for token in range(len(pydoc_model().tokens)))
    assert distribution.leaders(count) == ranked[:count]
    assert distribution.leaders(count, without) == [item for item in ranked if item[1] not in without][:count]
    assert distribution.peak == pytest.approx(-ranked[0][0], rel=1e-12)


@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("temperature", [0.05, 0.5, 1, 2])
def test_a_tempered_total_is_the_sum_over_the_vocabulary(order: int, context: str, temperature: float) -> None:
    model = pydoc_model()
    distribution = model.after(to_ids(model, context), order)
    tempered = model.temper(distribution, temperature)
    powers = [distribution.probability(token) ** (1 / temperature) for token in range(len(model.tokens))]
    assert tempered.total * distribution.peak ** (1 / temperature) == pytest.approx(math.fsum(powers))


@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("temperature", [0.5, 1, 2])
def test_draws_follow_the_exact_distribution(order: int, temperature: float) -> None:
    model, random = pydoc_model(), Random(7)
    distribution = model.after(to_ids(model, "The value of the"), order)
    tempered = model.temper(distribution, temperature)
    drawn = Counter(tempered.draw(random) for _ in range(20_000))
    powers = {token: distribution.probability(token) ** (1 / temperature) for token in range(len(model.tokens))}
    assert_drawn_from(drawn, {token: power / sum(powers.values()) for token, power in powers.items()})


@pytest.mark.parametrize("share", [0.001, 0.01, 0.98])
def test_draws_without_some_tokens_follow_the_exact_distribution_of_the_others(share: float) -> None:
    """The last 2 % are drawn too rarely to wait for them, so they are listed."""
    model, random = pydoc_model(), Random(7)
    distribution = model.after(to_ids(model, " in the"), 3)
    excluded = {token for _, token in distribution.leaders(int(share * len(model.tokens)))}
    drawn = Counter(model.temper(distribution, 0.8).draw_without(excluded, random) for _ in range(400))
    powers = {token: distribution.probability(token) ** 1.25 for token in range(len(model.tokens)) if token not in excluded}
    assert_drawn_from(drawn, {token: power / sum(powers.values()) for token, power in powers.items()})


def test_training_pauses_often_enough_for_other_threads() -> None:
    pauses = 0

    def pause() -> None:
        nonlocal pauses
        pauses += 1

    LanguageModel(TOY * 200, pause)
    assert pauses > 400


def test_the_model_is_the_same_however_often_it_is_trained() -> None:
    one, other = LanguageModel(TOY), LanguageModel(TOY)
    assert one.tokens == other.tokens
    assert one.after(to_ids(one, "the cat"), 5).leaders(99) == other.after(to_ids(other, "the cat"), 5).leaders(99)
