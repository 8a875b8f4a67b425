"""The embedded models as callers see them: whole and streamed, every parameter with its true meaning."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from time import perf_counter
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.config.providers_file import ParametersRow
from fanout.config.settings import load_settings
from fanout.core.errors import ProviderError
from fanout.core.messages import ImagePart, Message, OtherPart, TextPart
from fanout.core.sampling import Sampling
from fanout.core.schema import Call, Completion, Delta, FittedParameters, Query, Target
from fanout.providers import Provider, create
from fanout.providers.ngram.adapter import NgramProvider
from fanout.providers.ngram.language_model import END_OF_TEXT, IMPOSSIBLE, tokenize
from tests.support.ngram_reference import pydoc_model, pydoc_reference
from tests.support.timing import timed

PROMPT = "The value of the expression is"


def build_target(model: str | None = "ngram-5") -> Target:
    return Target(f"local/{model}", f"local/{model}", "local", model, "both")


def build_call(query: Query | None = None, model: str | None = "ngram-5", **sampling: Any) -> Call:
    query = replace(query or Query(prompt=PROMPT), sampling=Sampling(**sampling))
    return Call(3, 0, 0, build_target(model), query, fitted=NgramProvider().fit(build_target(model), query))


async def complete(query: Query | None = None, model: str = "ngram-5", **sampling: Any) -> Completion:
    return await NgramProvider().complete(build_call(query, model, **sampling))


async def complete_text(query: Query | None = None, model: str = "ngram-5", **sampling: Any) -> str:
    return (await complete(query, model, **sampling)).choices[0].message.text


async def collect_stream(query: Query | None = None, model: str = "ngram-5", **sampling: Any) -> tuple[list[Delta], Completion]:
    pieces = [piece async for piece in NgramProvider().stream(build_call(query, model, **sampling))]
    deltas = [piece for piece in pieces[:-1] if isinstance(piece, Delta)]
    assert len(deltas) == len(pieces) - 1
    assert isinstance(pieces[-1], Completion)
    return deltas, pieces[-1]


def run_sync(answer: Any) -> Any:
    """Run a coroutine in a property test, since hypothesis only takes plain functions."""
    return asyncio.run(answer)


async def test_the_adapter_is_found_by_its_name_in_the_shipped_configuration() -> None:
    async with aiohttp.ClientSession() as session:
        made: Provider = create(load_settings(environ={}).providers["local"], session)
        assert (await made.complete(build_call(max_tokens=3))).usage is not None


# Temperature, seed


@pytest.mark.parametrize("model", ["ngram-2", "ngram-3", "ngram-5"])
async def test_temperature_0_always_takes_the_likeliest_token(model: str) -> None:
    one, other = await complete(model=model, temperature=0, logprobs=1), await complete(model=model, temperature=0, seed=9)
    assert one.choices[0].message == other.choices[0].message
    for item in one.choices[0].logprobs or ():
        assert (item.token, item.logprob) == item.top[0]


async def test_the_same_seed_gives_the_same_text_and_another_seed_another() -> None:
    assert await complete_text(seed=1) == await complete_text(seed=1)
    assert await complete_text(seed=1) != await complete_text(seed=-(2**63))


async def test_without_a_seed_every_answer_differs() -> None:
    assert len({await complete_text(logit_bias={END_OF_TEXT: -100}) for _ in range(5)}) == 5


def test_the_same_seed_gives_the_same_text_in_another_process() -> None:
    """Hashes of strings differ there."""
    program = (
        "import asyncio; from tests.providers.ngram.test_adapter import complete_text; "
        "print(asyncio.run(complete_text(seed=5, frequency_penalty=.5, top_p=.9)), end='')"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    other = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True).stdout
    assert other == run_sync(complete_text(seed=5, frequency_penalty=0.5, top_p=0.9))


async def test_the_models_differ_and_the_higher_order_knows_the_text_better() -> None:
    """Each scores the others' training text: the mean log probability rises with the order."""
    known = " ".join(pydoc_reference().tokens[1:200]).replace("  ", " ")
    means = []
    for model in ("ngram-2", "ngram-3", "ngram-5"):
        answer = await complete(Query(prompt=known), model, echo=True, logprobs=0, max_tokens=0)
        means.append(statistics.fmean(item.logprob or 0 for item in answer.choices[0].logprobs or ()))
    assert means == sorted(means)
    assert means[2] > means[0] + 1


# Whole and streamed


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"stop": (" the", "."), "logprobs": 2},
        {"n": 3, "stop": ("e of",)},
        {"n": 2, "best_of": 4, "logprobs": 0},
        {"echo": True, "logprobs": 1, "n": 2},
        {"suffix": " is an object.", "echo": True},
        {"max_tokens": 0, "echo": True},
        {"max_tokens": 0},
    ],
    ids=str,
)
async def test_streamed_and_whole_are_the_same_answer_piece_by_piece(sampling: dict[str, Any]) -> None:
    deltas, completion = await collect_stream(seed=4, **sampling)
    assert completion == await complete(seed=4, **sampling)
    for number, choice in enumerate(completion.choices):
        own = [delta for delta in deltas if delta.choice_index == number]
        assert "".join(delta.text for delta in own) == choice.message.text
        assert all(delta.text and delta.call_index == 3 for delta in own)
        if choice.logprobs is not None:
            assert tuple(item for delta in own for item in delta.logprobs or ()) == choice.logprobs


async def test_a_stream_yields_a_delta_for_each_token() -> None:
    deltas, completion = await collect_stream(seed=4, max_tokens=40)
    assert completion.usage is not None
    assert len(deltas) == completion.usage.output_tokens == 40


async def test_the_choices_of_a_stream_are_written_side_by_side() -> None:
    deltas, _ = await collect_stream(seed=4, n=3, max_tokens=5)
    assert [delta.choice_index for delta in deltas] == [0, 1, 2] * 5


async def test_a_choice_is_the_same_however_many_others_there_are() -> None:
    several = await complete(seed=4, n=3)
    assert several.choices[0] == (await complete(seed=4)).choices[0]
    assert len({choice.message.text for choice in several.choices}) == 3


# Where an answer ends


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 50), model=st.sampled_from(("ngram-2", "ngram-5")))
def test_a_text_ends_before_its_first_stop_sequence_wherever_the_tokens_are_cut(
    data: st.DataObject, seed: int, model: str
) -> None:
    unstopped = run_sync(complete_text(model=model, seed=seed, max_tokens=40))
    begins = data.draw(st.lists(st.integers(0, max(0, len(unstopped) - 1)), max_size=3))
    stops = [unstopped[begin : begin + data.draw(st.integers(1, 12))] for begin in begins]
    stops = [*stops, data.draw(st.text(min_size=1, max_size=3))]
    deltas, completion = run_sync(collect_stream(model=model, seed=seed, max_tokens=40, stop=tuple(stops)))
    stopped = completion.choices[0].message.text
    ends = [unstopped.find(stop) + len(stop) for stop in stops if stop in unstopped]
    if ends:
        complete = unstopped[: min(ends)]
        assert stopped == complete[: min(len(complete) - len(stop) for stop in stops if complete.endswith(stop))]
        assert completion.choices[0].finish_reason == "stop"
    else:
        assert stopped == unstopped
    assert not any(stop in stopped for stop in stops)
    assert "".join(delta.text for delta in deltas) == stopped


async def test_a_stop_sequence_may_straddle_tokens() -> None:
    whole = await complete(seed=4, logprobs=0)
    tokens = [item.token for item in whole.choices[0].logprobs or ()]
    at = next(at for at in range(5, 100) if whole.choices[0].message.text.count(tokens[at][1:] + tokens[at + 1]) == 1)
    answer = await complete(seed=4, stop=(tokens[at][1:] + tokens[at + 1],), logprobs=0)
    assert answer.choices[0].message.text == "".join(tokens[:at]) + tokens[at][0]
    assert [item.token for item in answer.choices[0].logprobs or ()] == tokens[: at + 1]
    assert answer.usage is not None
    assert answer.usage.output_tokens == at + 2


async def test_an_unfinished_stop_sequence_is_shown() -> None:
    whole = await complete_text(seed=4, max_tokens=10)
    assert await complete_text(seed=4, max_tokens=10, stop=(whole[-5:] + "☃",)) == whole


async def test_the_end_of_a_text_stops_the_answer_and_is_not_counted_as_output() -> None:
    answer = await complete(logit_bias={END_OF_TEXT: 100}, logprobs=2)
    assert (answer.choices[0].message.text, answer.choices[0].finish_reason, answer.choices[0].logprobs) == ("", "stop", ())
    assert answer.usage is not None
    assert answer.usage.output_tokens == 0


async def test_max_tokens_is_exact_and_128_by_default() -> None:
    for max_tokens, expected in ((1, 1), (17, 17), (None, 128), (10**6, 1024)):
        answer = await complete(max_tokens=max_tokens, logit_bias={END_OF_TEXT: -100})
        assert answer.usage is not None
        assert (answer.usage.output_tokens, answer.choices[0].finish_reason) == (expected, "length")


# Log probabilities, echo


async def test_logprobs_are_the_models_own_before_temperature_penalties_and_truncation() -> None:
    sampling: dict[str, Any] = {"temperature": 0.3, "frequency_penalty": 1.0, "top_k": 3, "logit_bias": {" the": -5}}
    answer = await complete(model="ngram-3", seed=4, logprobs=5, max_tokens=25, **sampling)
    known = [END_OF_TEXT, *tokenize(PROMPT)]
    for item in answer.choices[0].logprobs or ():
        expected = pydoc_reference().probabilities(known, 3)
        ranked = sorted(expected.values(), reverse=True)[:5]
        assert item.logprob is not None
        assert 2.718281828459045**item.logprob == pytest.approx(expected[item.token])
        assert [2.718281828459045**value for _, value in item.top if value is not None] == pytest.approx(ranked)
        assert [expected[token] for token, _ in item.top] == pytest.approx(ranked)
        known.append(item.token)
    assert "".join(known[1:]) == PROMPT + answer.choices[0].message.text


async def test_echo_scores_the_prompt_from_its_second_token_on() -> None:
    answer = await complete(Query(prompt="The value of xylophone the"), "ngram-3", echo=True, logprobs=1, max_tokens=0)
    assert answer.choices[0].message.text == "The value of xylophone the"
    assert answer.choices[0].finish_reason == "length"
    scored = answer.choices[0].logprobs or ()
    assert [item.token for item in scored] == ["The", " value", " of", " xylophone", " the"]
    assert (scored[0].logprob, scored[0].top) == (None, ())
    expected = pydoc_reference().probabilities([END_OF_TEXT, "The", " value"], 3)[" of"]
    assert 2.718281828459045 ** (scored[2].logprob or 0) == pytest.approx(expected)
    assert scored[3].logprob == IMPOSSIBLE
    assert 2.718281828459045 ** (scored[4].logprob or 0) == pytest.approx(pydoc_reference().probabilities([], 3)[" the"])


async def test_echo_precedes_every_choice_and_is_not_searched_for_stop_sequences() -> None:
    plain, echoed = (
        await complete(seed=4, n=2, stop=(".",)),
        await complete(seed=4, n=2, stop=(".", "value of the expression"), echo=True),
    )
    assert [PROMPT + choice.message.text for choice in plain.choices] == [choice.message.text for choice in echoed.choices]


# Several drafts


async def test_best_of_returns_the_answers_with_the_highest_mean_logprob() -> None:
    sampling: dict[str, Any] = {"seed": 4, "logprobs": 0, "max_tokens": 12, "logit_bias": {END_OF_TEXT: -100}}
    drafts, best = await complete(n=6, **sampling), await complete(n=2, best_of=6, **sampling)
    ranked = sorted(drafts.choices, key=lambda choice: -statistics.fmean(item.logprob or 0 for item in choice.logprobs or ()))
    assert list(best.choices) == ranked[:2]
    assert ranked[0] != drafts.choices[0]
    assert best.usage is not None
    assert best.usage.output_tokens == 6 * 12


async def test_an_answer_leads_into_the_suffix() -> None:
    """The suffix is far more probable after an answer that was written for it than after any other."""
    suffix = " an exception is raised."

    async def compute_likelihood(answer: str) -> float:
        scored = (
            (await complete(Query(prompt=PROMPT + answer + suffix), echo=True, logprobs=0, max_tokens=0)).choices[0].logprobs
        )
        return sum(item.logprob or 0 for item in (scored or ())[-len(list(tokenize(suffix))) :])

    plain = [await compute_likelihood(await complete_text(seed=seed, max_tokens=40)) for seed in range(10)]
    led = [await compute_likelihood(await complete_text(seed=seed, max_tokens=40, suffix=suffix)) for seed in range(10)]
    assert statistics.fmean(led) > statistics.fmean(plain) + 2
    usage = (await complete(suffix=suffix, max_tokens=4)).usage
    assert usage is not None
    assert usage.input_tokens == len(list(tokenize(PROMPT))) + len(list(tokenize(suffix)))


async def test_best_of_weighs_answers_as_they_are_cut_before_a_suffix() -> None:
    answer = await complete(seed=4, suffix=" is raised.", n=8, best_of=8, logprobs=0, logit_bias={END_OF_TEXT: -100})
    means = [statistics.fmean(item.logprob or 0 for item in choice.logprobs or ()) for choice in answer.choices]
    assert means == pytest.approx(sorted(means, reverse=True))
    assert answer.usage is not None
    assert answer.usage.output_tokens == sum(len(choice.logprobs or ()) for choice in answer.choices)


# Logits


async def test_a_bias_takes_a_tokens_text_or_its_id() -> None:
    the = str(pydoc_model().ids[" the"])
    assert " the" in list(tokenize(await complete_text(temperature=0)))
    for key in (" the", the):
        assert " the" not in list(tokenize(await complete_text(temperature=0, logit_bias={key: -100})))
        assert await complete_text(logit_bias={key: 100}, max_tokens=3) == " the the the"


@pytest.mark.parametrize("key", ["100000", "9" * 5000, " xylophone", "-1", ""])
async def test_a_bias_on_an_unknown_token_is_refused(key: str) -> None:
    with pytest.raises(ProviderError) as error:
        await complete(logit_bias={key: 1})
    assert (error.value.failure.kind, error.value.failure.param) == ("bad_request", "logit_bias")
    assert len(error.value.failure.message) < 300


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty", "repetition_penalty"])
async def test_penalties_make_repetition_rarer(penalty: str) -> None:
    async def count_kinds(**sampling: Any) -> int:
        sampling |= {"temperature": 0.4, "logit_bias": {END_OF_TEXT: -100}}
        answers = [await complete_text(model="ngram-2", seed=seed, **sampling) for seed in range(8)]
        return sum(len(set(tokenize(answer))) for answer in answers)

    assert await count_kinds(**{penalty: 1.5}) > 1.2 * await count_kinds()


# What is ignored or adjusted


def test_clamped_parameters_are_reported() -> None:
    fitted = build_call(max_tokens=2000, n=40, best_of=50, logprobs=99).fitted
    assert fitted.adjusted == {"max_tokens": (2000, 1024), "n": (40, 16), "best_of": (50, 16), "logprobs": (99, 20)}
    assert fitted.sent == {"max_tokens": 1024, "n": 16, "best_of": 16, "logprobs": 20}
    assert fitted.ignored == ()


def test_parameters_without_a_meaning_are_reported_unless_a_contract_set_them() -> None:
    query = Query(prompt="x", passthrough={"tools": [], "response_format": {}})
    fitted = build_call(query, user="me", repetition_penalty=-1.0, temperature=0.5).fitted
    assert fitted.ignored == ("repetition_penalty", "user", "tools", "response_format")
    assert fitted.sent == {"temperature": 0.5}
    by_contract = build_call(
        Query(prompt="x", defaults=frozenset({"repetition_penalty", "n"})), repetition_penalty=-1.0, n=99
    ).fitted
    assert (by_contract.sent, by_contract.ignored, by_contract.adjusted) == ({"n": 16}, (), {})


def test_a_chat_takes_no_echo_no_suffix_and_no_content_but_text() -> None:
    parts = (TextPart("Hello"), ImagePart("https://example.com/cat.png"), OtherPart({"type": "input_audio"}))
    query = Query(messages=(Message("user", parts),))
    assert build_call(query, echo=True, suffix="x").fitted.ignored == ("echo", "suffix", "images", "input_audio")
    assert build_call(query, echo=False, suffix="").fitted.ignored == ("images", "input_audio")


async def test_the_operator_may_lower_a_cap_or_drop_a_parameter() -> None:
    overrides = ParametersRow(drop=("logit_bias",), clamp={"max_tokens": (None, 10)})
    provider, query = NgramProvider(overrides), Query(prompt="x", sampling=Sampling(max_tokens=50, logit_bias={"1": 1}))
    assert provider.fit(build_target(), query) == FittedParameters(
        {"max_tokens": 10}, ("logit_bias",), {"max_tokens": (50, 10)}
    )


async def test_a_chat_continues_the_text_of_its_messages() -> None:
    parts = (TextPart("the expression"), ImagePart("https://example.com/cat.png"), TextPart("is"))
    query = Query(messages=(Message("system", "The value of"), Message("assistant", None), Message("user", parts)))
    chat, plain = await complete(query, seed=1), await complete(Query(prompt="The value of\n\nthe expression\nis"), seed=1)
    assert chat == plain


async def test_a_prompt_may_be_token_ids() -> None:
    ids = tuple(token for token in pydoc_model().encode(PROMPT) if token is not None)
    by_ids = await complete(Query(prompt_tokens=ids), seed=1, echo=True)
    assert by_ids == await complete(seed=1, echo=True)


@pytest.mark.parametrize("token", [-1, 10**6])
async def test_a_prompt_of_unknown_ids_is_refused(token: int) -> None:
    with pytest.raises(ProviderError) as error:
        await complete(Query(prompt_tokens=(0, token)))
    assert (error.value.failure.kind, error.value.failure.param) == ("bad_request", "prompt")


# Who answers


async def test_an_answer_names_its_model_its_training_text_and_its_tokens() -> None:
    answer = await complete(model="ngram-3", n=2, max_tokens=5, logit_bias={END_OF_TEXT: -100})
    assert answer.model == "ngram-3"
    assert (answer.system_fingerprint or "").startswith(f"pydoc-{sys.version.split()[0]}-")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.cached_input_tokens) == (6, 10, 0)


@pytest.mark.parametrize("name", ["ngram-4", None])
async def test_an_unknown_model_is_not_found(name: str | None) -> None:
    with pytest.raises(ProviderError, match="known models: local/ngram-2, local/ngram-3, local/ngram-5") as error:
        await NgramProvider().complete(build_call(model=name))
    failure = error.value.failure
    assert (failure.kind, failure.code, failure.param) == ("not_found", "model_not_found", "model")


def test_a_python_without_its_documentation_fails_in_the_answer_and_not_before() -> None:
    program = """if True:
        import asyncio, sys
        from fanout.core.errors import ProviderError
        from tests.providers.ngram.test_adapter import NgramProvider, build_call

        async def main() -> None:
            await NgramProvider().prepare()
            try:
                await NgramProvider().complete(build_call())
            except ProviderError as error:
                print(error.failure.kind)

        sys.modules["pydoc_data.topics"] = None
        asyncio.run(main())
    """
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout == "not_configured\n"


# Beside others


def test_concurrent_first_calls_share_one_training() -> None:
    """The cache of the training counts its misses, in a fresh process with two providers."""
    program = """if True:
        import asyncio
        from fanout.providers.ngram.adapter import NgramProvider, _train

        async def main() -> None:
            one, other = NgramProvider(), NgramProvider()
            await asyncio.gather(*(provider.prepare() for provider in (one, other) * 10))
            print(_train.cache_info().misses)

        asyncio.run(main())
    """
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "1\n"


@timed
async def test_many_calls_at_once_leave_the_loop_to_others() -> None:
    """Each call keeps the loop for half a millisecond; a hundred must not do so in one pass."""
    provider = NgramProvider()
    await provider.prepare()
    answers = [asyncio.create_task(provider.complete(build_call(max_tokens=256))) for _ in range(100)]
    passes = []
    while not all(answer.done() for answer in answers):
        begun = perf_counter()
        await asyncio.sleep(0)
        passes.append(perf_counter() - begun)
    assert statistics.median(passes) < 0.01


async def test_a_cancelled_call_releases_its_turn() -> None:
    provider = NgramProvider()
    answers = [asyncio.create_task(provider.complete(build_call(max_tokens=1024, n=16))) for _ in range(4)]
    await asyncio.sleep(0.05)
    for answer in answers[:3]:
        answer.cancel()
    await asyncio.wait(answers, timeout=10)
    assert [answer.cancelled() for answer in answers] == [True, True, True, False]
    stream = provider.stream(build_call(seed=1))
    assert isinstance(await anext(stream), Delta)
    await stream.aclose()
    assert (await provider.complete(build_call(max_tokens=1))).choices
