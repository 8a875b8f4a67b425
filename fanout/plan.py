"""A request → its calls: sets, aliases and provider ids resolved, overrides applied, prompts × entries × samples. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from fanout.catalogue import Catalogue, Model
from fanout.errors import Fault, RequestError
from fanout.schema import Call, Credential, Failure, Fitted, Message, Query, Sampling, Target

Fit = Callable[[Target, Query], Fitted]
HIGHEST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the request's `model`: a name, and the sampling parameters that are this entry's own."""

    model: str
    label: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller wants, whichever dialect he speaks. Either `prompts` or `messages`."""

    entries: tuple[Entry, ...]
    prompts: tuple[str, ...] = ()
    many_prompts: bool = False
    """The prompt was a list, so each answer says whose it is."""
    messages: tuple[Message, ...] | None = None
    system: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    passthrough: Mapping[str, Any] = field(default_factory=dict)
    defaults: frozenset[str] = frozenset()
    """Sampling parameters that the contract set, not the caller."""
    strict: bool = False
    """What a provider cannot take fails that entry instead of being ignored."""
    credentials: Mapping[str, Credential] = field(default_factory=dict)
    """The caller's own keys, by provider."""


def plan(request: Request, catalogue: Catalogue, fit: Fit, max_calls: int, today: date) -> list[Call]:
    """The calls of a request, in the order of their answers: prompts, then entries, then samples.

    What cannot be called (an unknown or retired name, a missing key, a parameter under `strict`) is a call with a `refusal`.

    Raises:
        RequestError: more than `max_calls`.
    """
    entries = [_Resolved.of(entry, catalogue, request, today) for entry in _expanded(request.entries, catalogue)]
    prompts: tuple[str | None, ...] = request.prompts or (None,)
    count = len(prompts) * sum(entry.samples for entry in entries)
    if count > max_calls:
        sentence = f"the request makes {count} calls (prompts × models × n); at most {max_calls} are allowed"
        raise RequestError([Fault("model", sentence, "too_many_calls")])
    calls: list[Call] = []
    for prompt_index, prompt in enumerate(prompts):
        for position, entry in enumerate(entries):
            place = (prompt_index if request.many_prompts else None, position)
            calls.extend(_samples(entry, prompt, place, len(calls), fit, request))
    return calls


@dataclass(frozen=True, slots=True)
class _Resolved:
    """An entry with what its name stands for."""

    target: Target
    sampling: Sampling
    samples: int
    refusal: Failure | None
    credential: Credential | None

    @classmethod
    def of(cls, entry: Entry, catalogue: Catalogue, request: Request, today: date) -> _Resolved:
        model = catalogue.find(entry.model)
        sampling = replace(request.sampling, **entry.overrides) if entry.overrides else request.sampling
        samples, sampling = sampling.n or 1, replace(sampling, n=None) if sampling.n else sampling
        label = entry.label or entry.model
        if model is None:
            target = Target(label=label, name=entry.model, provider=None, model=None)
            return cls(target, sampling, samples, catalogue.unknown(entry.model), None)
        credential = request.credentials.get(model.provider)
        return cls(
            target=Target(
                label=label,
                name=entry.model,
                provider=model.provider,
                model=model.id,
                kind=model.kind,
                limit_group=model.row.limit_group if model.row else None,
            ),
            sampling=sampling,
            samples=samples,
            refusal=catalogue.retired(model, today) or _refusal(model, catalogue, request, own_key=credential is not None),
            credential=credential,
        )


def _expanded(entries: tuple[Entry, ...], catalogue: Catalogue) -> Iterator[Entry]:
    """Each set as its members: entries of their own, with the overrides of the set's entry."""
    for entry in entries:
        members = catalogue.members(entry.model)
        if members is None or catalogue.find(entry.model):
            yield entry
        else:
            for member in members:
                label = f"{entry.label}: {member}" if entry.label else None
                yield Entry(model=member, label=label, overrides=entry.overrides)


def _refusal(model: Model, catalogue: Catalogue, request: Request, *, own_key: bool) -> Failure | None:
    if catalogue.lacks(model, own_key=own_key):
        return catalogue.not_configured(model)
    if request.messages is not None and model.kind == "text":
        sentence = f"`{model.name}` completes text and takes no messages; ask it at `/v1/completion` or `/v1/completions`"
        return Failure("unsupported", sentence, code="unsupported_endpoint", param="model")
    return None


def _samples(
    entry: _Resolved, prompt: str | None, place: tuple[int | None, int], first: int, fit: Fit, request: Request
) -> Iterator[Call]:
    query = _query(entry, prompt, request)
    unheard = ("system",) if request.system and query.messages is None else ()
    for sample in range(entry.samples):
        if sample == 0 or query.sampling.seed is not None:
            query = _with_seed_of(query, entry.sampling.seed, sample)
            fitted = fit(entry.target, query) if entry.refusal is None else Fitted()
            if unheard:
                fitted = replace(fitted, ignored=(*fitted.ignored, *unheard))
        yield Call(
            index=first + sample,
            entry=place[1],
            sample=sample,
            target=entry.target,
            query=query,
            prompt_index=place[0],
            fitted=fitted,
            credential=entry.credential,
            refusal=entry.refusal or (_strict_refusal(entry.target, fitted) if request.strict else None),
        )


def _query(entry: _Resolved, prompt: str | None, request: Request) -> Query:
    """A chat model gets the prompt as one user message, a text model as it is; one that does both, the latter."""
    messages = request.messages
    if (
        messages is None
        and prompt is not None
        and (entry.target.kind == "chat" or (request.system and entry.target.kind == "both"))
    ):
        system = (Message("system", request.system),) if request.system else ()
        messages = (*system, Message("user", prompt))
    return Query(
        messages=messages,
        prompt=None if messages is not None else prompt,
        sampling=entry.sampling,
        passthrough=request.passthrough,
        defaults=request.defaults,
    )


def _with_seed_of(query: Query, seed: int | None, sample: int) -> Query:
    """Sample k of a seeded entry has seed + k: with one seed for all, every sample would be the same text."""
    if seed is None or sample == 0:
        return query
    shifted = seed + sample if seed + sample <= HIGHEST_SEED else seed + sample - 2 * (HIGHEST_SEED + 1)
    return replace(query, sampling=replace(query.sampling, seed=shifted))


def _strict_refusal(target: Target, fitted: Fitted) -> Failure | None:
    if fitted.ignored:
        names = ", ".join(f"`{name}`" for name in fitted.ignored)
        sentence = f"`{target.name}` cannot take {names}; leave it out, or set `strict_parameters` to false to have it ignored"
        return Failure("unsupported", sentence, code="unsupported_parameter", param=fitted.ignored[0])
    if fitted.adjusted:
        name, (asked, sent) = next(iter(fitted.adjusted.items()))
        sentence = f"`{target.name}` cannot take `{name}` {asked}; the nearest it takes is {sent}"
        return Failure("unsupported", sentence, code="unsupported_parameter", param=name)
    return None
