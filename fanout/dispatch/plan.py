"""Planning of a request's calls: names resolved, overrides applied, prompts × entries × samples. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from datetime import date

from fanout.config.catalogue import Catalogue
from fanout.core.errors import Fault, RequestError
from fanout.core.messages import Message
from fanout.core.query_size import measure, measure_inputs
from fanout.core.schema import Call, Failure, FittedParameters, Query, RequestScope, Target
from fanout.dispatch.fusion_plan import spare_members
from fanout.dispatch.request import Prompt, Request
from fanout.dispatch.resolution import ResolvedEntry, resolve, wrap_seed

ParameterFitter = Callable[[Target, Query], FittedParameters]
"""`Provider.fit` of the target's provider."""


def plan(
    request: Request,
    catalogue: Catalogue,
    fit: ParameterFitter,
    max_calls: int,
    today: date,
    only: Collection[int] | None = None,
    scope: RequestScope | None = None,
) -> list[Call]:
    """Return the calls of a request, in the order of their answers: prompts, then entries, then samples.

    With `only`, return the calls of these entries (sets expanded), which is all that one queue of a job needs.

    An entry that cannot be called (an unknown or retired name, a missing key, a parameter under `strict`) becomes a call with
    a `refusal`.

    Raises:
        RequestError: more than `max_calls`, or an `n` below 1.
    """
    resolution = resolve(request, catalogue, today, only)
    entries, has_fusions = resolution.entries, resolution.has_fusions
    if has_fusions and request.native_n:
        request = replace(request, native_n=False)  # a fusion's samples need calls of their own to wait for
    prompts: tuple[Prompt | None, ...] = request.prompts or (None,)
    count = len(prompts) * resolution.samples
    # Checked before any call is built, so that a huge `n` costs no memory.
    if count > max_calls:
        allowed = f"at most {max_calls} are allowed for a request or a row (FANOUT_MAX_CALLS)"
        sentence = f"makes {count} calls (prompts × models × n); {allowed}"
        raise RequestError([Fault("model", sentence, "too_many_calls")])
    calls: list[Call] = []
    index, scope = 0, scope or RequestScope()
    for prompt_index, prompt in enumerate(prompts):
        queries = _QueryBuilder(request, prompt)
        for position, entry in entries:
            place = (position, prompt_index if request.many_prompts else None)
            for query, fitted, sample in _plan_samples(entry, queries, fit, request):
                calls.append(_build_call(entry, query, fitted, (index, *place, sample), request, scope))
                index += query.sampling.n or 1  # each answer of a call with `n` has its own place
    return spare_members(calls) if has_fusions else calls


class _QueryBuilder:
    """The queries for one prompt. Equal entries share a query, so that it is built, and encoded, once."""

    def __init__(self, request: Request, prompt: Prompt | None) -> None:
        self._request, self._prompt = request, prompt
        self._built: dict[tuple[bool, int, int, int], Query] = {}
        self._last: tuple[ResolvedEntry, Query] | None = None

    def build(self, entry: ResolvedEntry) -> Query:
        """Return an entry's query: a chat model gets the prompt as one user message, any other model as plain text."""
        if (last := self._last) and entry.gets_query_of(last[0]):  # nearly always, if not the first
            return last[1]
        query = self._build(entry)
        self._last = entry, query
        return query

    def _build(self, entry: ResolvedEntry) -> Query:
        request = self._request
        if request.inputs is not None:
            size = measure_inputs(request.inputs)
            return Query(inputs=request.inputs, task="embed", sampling=entry.sampling, passthrough=entry.passthrough, size=size)
        # The tokens of a prompt are those of the text alone, also where a chat model would get it as a message.
        kind = entry.target.kind if request.task == "answer" else "text"
        has_messages = bool(request.system or entry.earlier)
        chat = request.messages is not None or kind == "chat" or (has_messages and kind == "both")
        # By identity: entries without overrides share objects, and comparing values would cost more than building.
        key = (chat, id(entry.sampling), id(entry.passthrough), id(entry.earlier))
        query = self._built.get(key)
        if query is None:
            messages = self._build_messages(entry.earlier) if chat else None
            query = self._built[key] = Query(
                messages=messages,
                prompt=self._prompt if isinstance(self._prompt, str) and not chat else None,
                prompt_tokens=self._prompt if isinstance(self._prompt, tuple) and not chat else None,
                task=request.task,
                sampling=entry.sampling,
                passthrough=entry.passthrough,
                defaults=entry.defaults,
                size=measure(messages if messages is not None else self._prompt or "", entry.passthrough),
            )
        return query

    def _build_messages(self, earlier: tuple[Message, ...]) -> tuple[Message, ...]:
        request = self._request
        system = (Message("system", request.system),) if request.system else ()
        if request.messages is not None:
            return (*system, *request.messages)
        return (*system, *earlier, Message("user", self._prompt if isinstance(self._prompt, str) else None))


def _plan_samples(
    entry: ResolvedEntry, queries: _QueryBuilder, fit: ParameterFitter, request: Request
) -> Iterable[tuple[Query, FittedParameters, int]]:
    """Return one entry's calls for one prompt: query, fitted parameters, number of the sample."""
    query = queries.build(entry)
    if entry.refusal:
        return [(query, FittedParameters(), sample) for sample in range(entry.samples)]
    if entry.samples == 1:
        return ((query, fit(entry.target, query), 0),)
    return _plan_many(entry, query, fit, request)


def _plan_many(
    entry: ResolvedEntry, query: Query, fit: ParameterFitter, request: Request
) -> Iterator[tuple[Query, FittedParameters, int]]:
    if request.native_n:
        together = replace(query, sampling=replace(query.sampling, n=entry.samples))
        fitted = fit(entry.target, together)
        # Ignored or clamped, `n` would give fewer answers than requested: then it is calls after all.
        if "n" not in fitted.ignored and "n" not in fitted.adjusted:
            yield together, fitted, 0
            return
    fitted = fit(entry.target, query)
    for sample in range(entry.samples):
        if sample and query.sampling.seed is not None:
            query = _shift_seed(query, entry.sampling.seed, sample)
            fitted = fit(entry.target, query)
        yield query, fitted, sample


def _build_call(
    entry: ResolvedEntry,
    query: Query,
    fitted: FittedParameters,
    place: tuple[int, int, int | None, int],
    request: Request,
    scope: RequestScope,
) -> Call:
    index, position, prompt_index, sample = place
    if request.system and query.messages is None and not entry.refusal:
        # A text model has no place for it: listed as ignored, so that nobody takes its answer for one under these
        # instructions.
        fitted = replace(fitted, ignored=(*fitted.ignored, "system"))
    if entry.ignored:
        fitted = replace(fitted, ignored=(*fitted.ignored, *entry.ignored))
    return Call(
        index=index,
        entry=position,
        sample=sample,
        target=entry.target,
        query=query,
        prompt_index=prompt_index,
        fitted=fitted,
        credential=entry.credential,
        account_id=request.account_id,
        refusal=entry.refusal or (_find_strict_refusal(entry.target, fitted) if request.strict else None),
        scope=scope,
        fusion=entry.fusion,
        is_member=entry.is_member,
    )


def _shift_seed(query: Query, seed: int | None, sample: int) -> Query:
    """Give sample k of a seeded entry the seed + k, because with equal seeds all samples would be the same text."""
    return replace(query, sampling=replace(query.sampling, seed=wrap_seed((seed or 0) + sample)))


def _find_strict_refusal(target: Target, fitted: FittedParameters) -> Failure | None:
    if fitted.ignored:
        names = ", ".join(f"`{name}`" for name in fitted.ignored)
        sentence = f"`{target.name}` cannot take {names}; leave it out, or set `strict_parameters` to false to have it ignored"
        return Failure("unsupported", sentence, code="unsupported_parameter", param=fitted.ignored[0])
    if fitted.adjusted:
        name, (wanted, sent) = next(iter(fitted.adjusted.items()))
        sentence = f"`{target.name}` cannot take `{name}` {wanted}; the nearest it takes is {sent}"
        if wanted is None:
            sentence = f"`{target.name}` needs `{name}`; without `strict_parameters` {sent} is sent"
        return Failure("unsupported", sentence, code="unsupported_parameter", param=name)
    return None
