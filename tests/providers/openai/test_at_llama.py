"""OpenAI's wire format against a real llama.cpp server, which nobody here wrote."""

from __future__ import annotations

import asyncio

import pytest

from fanout.core.errors import ProviderError
from fanout.core.schema import Call, Completion
from fanout.providers.openai.adapter import OpenAi
from tests.support.llama.process import ENDLESS, LONG_TOKENS, Llama
from tests.support.openai_format import build_openai
from tests.support.provider_calls import build_call, collect_stream, open_session


async def call_both_ways(llama: Llama, prompt: str | None) -> tuple[Completion, Completion]:
    """The same seeded call, whole and streamed; the deltas must say what the stream's end does."""
    async with open_session() as session:
        provider = build_openai(llama.url, session=session, key=llama.key)
        call = build_call(provider, llama.model, prompt=prompt, max_tokens=12, seed=3, temperature=0.0, logprobs=2)
        whole = await provider.complete(call)
        deltas, streamed = await collect_stream(provider, call)
    assert "".join(delta.text for delta in deltas) == streamed.choices[0].message.text
    return whole, streamed


@pytest.mark.parametrize("prompt", [None, "Once upon a time"])
async def test_a_whole_answer_equals_its_stream(llama: Llama, prompt: str | None) -> None:
    """Chat and text: text, finish reason, usage, and logprobs (chat-shaped on both paths)."""
    for completion in await call_both_ways(llama, prompt):
        (choice,) = completion.choices
        assert choice.finish_reason in ("length", "stop")
        assert choice.message.text
        assert completion.usage is not None
        assert completion.usage.output_tokens == 12 or choice.finish_reason == "stop"
        assert choice.logprobs
        assert all(len(token.top) == 2 and token.logprob is not None for token in choice.logprobs)


async def test_several_choices_are_read(llama: Llama) -> None:
    """`n` is the server's own."""
    async with open_session() as session:
        provider = build_openai(llama.url, session=session, key=llama.key)
        call = build_call(provider, llama.model, max_tokens=4, n=2)
        assert len((await provider.complete(call)).choices) == 2
        deltas, streamed = await collect_stream(provider, call)
    assert len(streamed.choices) == 2
    assert {delta.choice_index for delta in deltas} == {0, 1}


async def get_failure_kind(provider: OpenAi, call: Call) -> str:
    with pytest.raises(ProviderError) as caught:
        await provider.complete(call)
    return caught.value.failure.kind


async def test_refusals_of_llama_cpp_are_read(llama: Llama) -> None:
    """A wrong key; more than the context holds."""
    async with open_session() as session:
        wrong = build_openai(llama.url, session=session, key="sk-wrong-key")
        assert await get_failure_kind(wrong, build_call(wrong, llama.model)) == "auth"
        right = build_openai(llama.url, session=session, key=llama.key)
        assert await get_failure_kind(right, build_call(right, llama.model, prompt="word " * 20_000)) == "bad_request"


async def test_cancelling_a_call_frees_its_slot(llama: Llama) -> None:
    """The model stops, not only our waiting for it."""
    async with open_session() as session:
        provider = build_openai(llama.url, session=session, key=llama.key)
        call = build_call(provider, llama.model, max_tokens=LONG_TOKENS, logit_bias=ENDLESS)
        async with llama.expect_release():
            task = asyncio.ensure_future(collect_stream(provider, call))
            await llama.wait_until_busy()
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
