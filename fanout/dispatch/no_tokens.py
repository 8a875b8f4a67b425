"""Answers to `max_tokens: 0`: nothing is generated, and a provider is called only if its model must read the prompt."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

from fanout.core.schema import Answer, Call, Choice, Completion, Delta, Query
from fanout.core.usage import Cost, Usage
from fanout.providers import OnHeaders, Provider

COST = Cost(0.0, "not_called")
"""Of such an answer, whether the model's price is known or not: nobody was called who could charge."""


def build_answer(call: Call) -> Completion:
    """Return the answer for which no provider is needed: the prompt with `echo`, else nothing."""
    sampling = call.query.sampling
    text = call.query.prompt if sampling.echo and call.query.prompt else ""
    has_no_logprobs = text or sampling.logprobs is None or "logprobs" in call.fitted.ignored
    choice = Choice(Answer(text), "length", logprobs=None if has_no_logprobs else ())
    return Completion(choices=(choice,) * (sampling.n or 1), usage=Usage.of_plain_model(0, 0))


class PromptReader:
    """A provider for calls that score or spell their prompt: each answer comes whole, cut to the prompt."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def complete(self, call: Call, on_headers: OnHeaders | None = None) -> Completion:
        """Make one attempt; see `Provider.complete`."""
        completion = await self._provider.complete(call, on_headers)
        if not call.fitted.cut_token:
            return completion
        generated = completion.usage.output_tokens if completion.usage else None
        choices = tuple(_cut_token(choice, call.query, generated) for choice in completion.choices)
        return replace(completion, choices=choices)

    async def stream(self, call: Call, on_headers: OnHeaders | None = None) -> AsyncGenerator[Delta | Completion]:
        """Make one attempt and yield each answer in one piece: which token is to be cut is known only at its end."""
        completion = await self.complete(call, on_headers)
        for number, choice in enumerate(completion.choices):
            yield choice.to_delta(call.index, number)
        yield completion


def _cut_token(choice: Choice, query: Query, generated: int | None) -> Choice:
    """Return a choice without the one token that was generated; its text may be empty, as that of the end is."""
    tokens, text = choice.logprobs or (), choice.message.text
    last = tokens[-1].token if tokens and generated != 0 else ""
    kept = tokens[:-1] if generated != 0 else tokens
    is_echoed = query.prompt is not None and text.startswith(query.prompt)
    text = query.prompt or "" if is_echoed else text.removesuffix(last)
    message = replace(choice.message, text=text)
    return replace(
        choice,
        message=message,
        finish_reason="length",
        native_finish_reason=None,
        logprobs=None if choice.logprobs is None else kept,
    )
