"""The real llama.cpp server that the tests run."""

from __future__ import annotations

import aiohttp

from tests.support.llama.process import LONG_TOKENS, Llama

QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def open_session(llama: Llama) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {llama.key}"})


async def test_the_server_answers_a_chat_completion(llama: Llama) -> None:
    """Text, finish reason and usage come from a model that ran."""
    async with (
        open_session(llama) as client,
        client.post(f"{llama.url}/chat/completions", json=QUESTION | {"max_tokens": 8}) as got,
    ):
        answer = await got.json()

    assert got.status == 200
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] <= 8


async def test_an_abandoned_call_frees_its_slot(llama: Llama) -> None:
    """4,000 tokens take seconds, and nobody waits for them."""
    body = QUESTION | {"max_tokens": LONG_TOKENS, "ignore_eos": True, "stream": True}
    async with (
        llama.expect_release(),
        open_session(llama) as client,
        client.post(f"{llama.url}/chat/completions", json=body) as got,
    ):
        await got.content.readline()
        busy = await llama.count_busy_slots()
        got.close()

    assert busy == 1


async def test_the_server_requires_its_key(llama: Llama) -> None:
    async with aiohttp.ClientSession() as client, client.post(f"{llama.url}/chat/completions", json=QUESTION) as got:
        assert got.status == 401
