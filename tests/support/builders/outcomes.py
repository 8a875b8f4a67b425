"""Outcomes of calls, as the Dispatcher notifies its observers of them."""

from __future__ import annotations

from fanout.core.schema import Call, Completion, Failure, FailureKind, Outcome, Query, Retry, Target
from fanout.core.usage import Cost, Usage

KNOWN = Usage(input_tokens=10, output_tokens=4, cached_input_tokens=2)


def make_call(model: str = "gpt-6-sol", account_id: str | None = None) -> Call:
    target = Target(label="its label", name=model, provider="openai", model=f"{model}-0613", listed_as=model)
    return Call(index=0, entry=0, sample=0, target=target, query=Query(prompt="hi"), account_id=account_id)


def make_answer(
    model: str = "gpt-6-sol", account_id: str | None = None, *, usage: Usage | None = KNOWN, usd: float | None = 0.25
) -> Outcome:
    cost = None if usd is None else Cost(usd, "providers.json")
    return Outcome(make_call(model, account_id), Completion(choices=(), usage=usage), cost=cost)


def make_failure(kind: FailureKind, model: str = "gpt-6-sol", account_id: str | None = None) -> Outcome:
    return Outcome(make_call(model, account_id), Failure(kind, "it failed"))


def make_retry(model: str = "gpt-6-sol") -> Retry:
    return Retry(make_call(model), Failure("server", "it failed"), attempt=1, delay_s=0.1)
