"""Admission of calls by the limits of a stored key: the most that they can cost is reserved, and what they did is settled."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache

from aiohttp import web

from fanout.config.catalogue import Catalogue
from fanout.core.errors import StoreError
from fanout.core.query_size import measure_query
from fanout.core.schema import Call, Completion, Failure, Outcome, QueueShare, Retry
from fanout.core.usage import Usage
from fanout.dispatch.dispatcher import Dispatcher
from fanout.jobs.budget import max_usage
from fanout.rendering.errors import ErrorReply
from fanout.server.accounts import limits as key_limits
from fanout.server.accounts.callers import Caller, find_caller
from fanout.server.accounts.ledger import KeyCounts, KeyLedger
from fanout.server.accounts.limits import Demand
from fanout.server.accounts.permissions import NOT_ALLOWED_CODE, build_refusal, make_check
from fanout.server.lifecycle import DISPATCHER
from fanout.store.keys.counts import UseCount

BYTES_PER_TOKEN = 4
UNSET_OUTPUT_TOKENS = 256
"""Tokens of an answer without `max_tokens`, for the limit by the minute."""
CHARGED_KINDS = frozenset({"cancelled", "timeout", "malformed", "content_filter", "internal"})
"""Failures of calls that the provider may have charged for, without telling how much: those that were cut off, and those
whose answers were not read, or were refused here."""
ROUTING_FIELDS = frozenset({"models", "fallbacks"})
"""Fields by which a host such as OpenRouter or LiteLLM is told to call another model."""
KEY_LEDGER = web.AppKey("key_ledger", KeyLedger)
"""Absent without a store."""


class AdmissionError(Exception):
    """The limits of a key do not allow a request now."""

    def __init__(self, reply: ErrorReply) -> None:
        self.reply = reply
        super().__init__(reply.error["message"])


@dataclass(slots=True)
class Admission:
    """The reservations of calls from the limits of their key; each gives its own back when it ends."""

    ledger: KeyLedger
    counts: KeyCounts
    dispatcher: Dispatcher
    reserved: dict[int, Demand]
    """By the index of the call."""
    is_detached: bool = False
    """Its calls outlive its request, and whoever runs them closes it."""
    is_closed: bool = field(default=False, init=False)

    def settle(self, outcome: Outcome) -> None:
        """Replace what a call has reserved by what it has used."""
        if demand := self.reserved.pop(outcome.call.index, None):
            settle(self.counts, demand, outcome, self.dispatcher)
            self.ledger.notify()

    def close(self) -> None:
        """Give back what is reserved for calls that were never made, and the place of the request."""
        if self.is_closed:
            return
        self.is_closed = True
        for demand in self.reserved.values():
            give_back(self.counts, demand)
        self.reserved.clear()
        self.counts.in_flight -= 1
        self.ledger.notify()


ADMISSION = web.RequestKey("admission", Admission)
CURRENT_ADMISSION: ContextVar[Admission | None] = ContextVar("admission", default=None)
"""Of the request whose calls are made: tasks inherit it."""
RATE_HEADERS = web.RequestKey[Mapping[str, str]]("rate_headers", dict)


def observe(event: Outcome | Retry) -> None:
    """Settle a call's reservation, as an observer of the Dispatcher."""
    if isinstance(event, Outcome) and (admission := CURRENT_ADMISSION.get()) is not None:
        admission.settle(event)


async def admit(request: web.Request, calls: Sequence[Call]) -> Sequence[Call]:
    """Reserve what the calls of a request need; return them, with a refusal in those that their key may not make.

    Raises:
        AdmissionError: the key's budget is spent, or one of its limits is reached.
        HTTPServiceUnavailable: what the key has used cannot be read.
    """
    caller = find_caller(request)
    if caller.key_id is None:
        return calls
    ledger, dispatcher = request.app[KEY_LEDGER], request.app[DISPATCHER]
    try:
        counts = await ledger.open(caller.key_id)
    except StoreError as error:
        message = "what this key has used cannot be read now; nothing was called"
        raise web.HTTPServiceUnavailable(text=message, headers={"Retry-After": "1"}) from error
    calls = await restrict(caller, dispatcher, calls)
    demands = estimate(caller, dispatcher, calls)
    total = Demand(sum(demand.tokens for demand in demands.values()), sum(demand.cost_usd for demand in demands.values()))
    now = time.time()
    if reply := key_limits.refuse(counts, caller.limits, now, total):
        raise AdmissionError(reply)
    reserve(counts, now, total)
    request[ADMISSION] = admission = Admission(ledger, counts, dispatcher, demands)
    CURRENT_ADMISSION.set(admission)
    request[RATE_HEADERS] = key_limits.build_rate_headers(key_limits.list_windows(counts, caller.limits, now))
    return calls


async def restrict(caller: Caller, dispatcher: Dispatcher, calls: Sequence[Call]) -> Sequence[Call]:
    """Return calls, with a refusal in those to a model that a key may not call, or whose price its budget must know."""
    limits = caller.limits
    if limits.models is None and limits.queue_share is None and not has_budget(caller):
        return calls
    if has_budget(caller):
        await dispatcher.upstreams.load_prices()  # else the first price would load them on the event loop
    return [restrict_call(caller, dispatcher, call) for call in calls]


def restrict_call(caller: Caller, dispatcher: Dispatcher, call: Call) -> Call:
    """Return one call as `restrict` does; the prices must have been loaded."""
    models, name = caller.limits.models, call.target.name
    if call.refusal:
        return call
    if models is not None and not _find_check(tuple(models), dispatcher.catalogue)(name):
        return replace(call, refusal=build_refusal(name, models))
    if models is not None and (field := next((one for one in call.query.passthrough if one in ROUTING_FIELDS), None)):
        message = f"`{field}` would have the host call other models, and this key may call some alone"
        return replace(call, refusal=Failure("not_found", message, code=NOT_ALLOWED_CODE, param=field))
    if has_budget(caller) and call.credential is None and find_cost(dispatcher, call, Usage(1, 1)) is None:
        return _unpriced(call)
    if caller.key_id is not None and caller.limits.queue_share is not None:
        return replace(call, queue_share=QueueShare(caller.key_id, caller.limits.queue_share))
    return call


def may_call(caller: Caller, catalogue: Catalogue, name: str) -> bool:
    """Return whether the key of a caller may call a model."""
    models = caller.limits.models
    return models is None or _find_check(tuple(models), catalogue)(name)


_find_check = lru_cache(maxsize=256)(make_check)


def _unpriced(call: Call) -> Call:
    message = f"the price of `{call.target.name}` is not known, so the budget of this key cannot be kept"
    return replace(call, refusal=Failure("quota", message, code="price_unknown", param="model"))


def has_budget(caller: Caller) -> bool:
    """Return whether the key of a caller has a budget."""
    limits = caller.limits
    return any(one is not None for one in (limits.budget_day_usd, limits.budget_month_usd, limits.budget_total_usd))


def estimate(caller: Caller, dispatcher: Dispatcher, calls: Sequence[Call]) -> dict[int, Demand]:
    """Return what each call needs, by its index: the most that it can cost, and about as many tokens as it may take."""
    has_price = has_budget(caller)
    sent = [call for call in calls if call.refusal is None]
    outputs = {call.entry: max_usage(call.query).output_tokens or 0 for call in sent} if any(c.fusion for c in sent) else {}
    found = {}
    for call in sent:
        read = sum(outputs.get(entry, 0) for entry in call.fusion.of) if call.fusion else 0
        found[call.index] = estimate_call(dispatcher, call, read, has_price=has_price)
    return found


def estimate_call(dispatcher: Dispatcher, call: Call, members_tokens: int = 0, *, has_price: bool) -> Demand:
    """Return what a call needs; a fusion also reads the answers of its members."""
    cost = 0.0
    if has_price and call.credential is None:  # a caller's own key costs us nothing
        usage = max_usage(call.query)
        cost = find_cost(dispatcher, call, replace(usage, input_tokens=(usage.input_tokens or 0) + members_tokens)) or 0.0
    return Demand(_estimate_input(call) + members_tokens + _estimate_output(call), cost, time.time())


def find_cost(dispatcher: Dispatcher, call: Call, usage: Usage) -> float | None:
    """Return the cost of a call with a usage in US dollars; `None`: its price is not known."""
    cost = dispatcher.compute_cost(call, usage)
    return None if cost is None else cost.usd


def reserve(counts: KeyCounts, now: float, demand: Demand) -> None:
    """Count a request, and keep what it needs."""
    counts.in_flight += 1
    counts.reserved_usd += demand.cost_usd
    counts.add(now, UseCount(1, demand.tokens))


def give_back(counts: KeyCounts, demand: Demand, used: UseCount | None = None) -> None:
    """Replace what is reserved for a call by what it has used: nothing, if it was not made."""
    counts.reserved_usd = max(counts.reserved_usd - demand.cost_usd, 0.0)  # sums of floats may end a little below zero
    used, now = used or UseCount(), time.time()
    counts.add(now, UseCount(cost_usd=used.cost_usd))
    # What is given back is that of the minute in which it was taken: it must not make room for more in this one.
    excess = used.tokens - demand.tokens
    counts.add(demand.at if excess < 0 else now, UseCount(tokens=excess))


def settle(counts: KeyCounts, demand: Demand, outcome: Outcome, dispatcher: Dispatcher) -> None:
    """Replace what is reserved for a call by what it has used, as far as that is known."""
    result, call = outcome.result, outcome.call
    if isinstance(result, Completion):
        usage = result.usage
        known = usage is not None and usage.input_tokens is not None and usage.output_tokens is not None
        tokens = (usage.input_tokens or 0) + (usage.output_tokens or 0) if usage and known else demand.tokens
        # Counted in full where it is not known: too much is safer than too little.
        cost = demand.cost_usd if outcome.cost is None else outcome.cost.usd
        give_back(counts, demand, UseCount(0, tokens, 0.0 if call.credential else cost))
    elif outcome.timing.attempts and result.kind in CHARGED_KINDS and (result.status or 0) < 400:
        # Or whoever leaves before the end would never pay.
        if not result.partial:  # how much the provider has written is not known
            give_back(counts, demand, UseCount(0, demand.tokens, demand.cost_usd))
            return
        received = -(-len(result.partial.encode(errors="replace")) // BYTES_PER_TOKEN)
        sent = _estimate_input(call)
        spent = 0.0 if call.credential else find_cost(dispatcher, call, Usage(sent, received)) or 0.0
        give_back(counts, demand, UseCount(0, sent + received, spent))
    else:
        give_back(counts, demand)


def _estimate_input(call: Call) -> int:
    return -(-measure_query(call.query).text // BYTES_PER_TOKEN)


def _estimate_output(call: Call) -> int:
    sampling = call.query.sampling
    if call.query.task != "answer":
        return 0
    return (UNSET_OUTPUT_TOKENS if sampling.max_tokens is None else sampling.max_tokens) * sampling.generated_answers
