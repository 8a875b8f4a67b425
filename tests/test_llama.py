"""The real llama.cpp server that other tests call."""

from __future__ import annotations

import aiohttp

from tests.llama import Llama

QUESTION = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def session(llama: Llama) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {llama.key}"})


async def test_it_answers_a_chat_completion(llama: Llama) -> None:
    """Text, finish reason and usage come from a model that ran."""
    async with session(llama) as client, client.post(f"{llama.url}/chat/completions", json=QUESTION | {"max_tokens": 8}) as got:
        answer = await got.json()

    assert got.status == 200
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] <= 8


async def test_a_call_that_is_left_frees_its_slot(llama: Llama) -> None:
    """What `slots_busy` is for: 4,000 tokens take seconds, and nobody waits for them."""
    body = QUESTION | {"max_tokens": 4000, "ignore_eos": True, "stream": True}
    async with session(llama) as client, client.post(f"{llama.url}/chat/completions", json=body) as got:
        await got.content.readline()
        busy = await llama.slots_busy()
        got.close()
        await llama.idle(timeout_s=2)

    assert busy == 1


async def test_it_wants_its_key(llama: Llama) -> None:
    async with aiohttp.ClientSession() as client, client.post(f"{llama.url}/chat/completions", json=QUESTION) as got:
        assert got.status == 401
