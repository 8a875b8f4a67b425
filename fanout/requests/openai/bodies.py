"""Fields that requests of text and chat completions have in common.

Source: https://github.com/openai/openai-openapi; `repetition_penalty` is Konko's, `top_k` LangChain's for Konko.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from fanout.core.errors import Fault
from fanout.core.json_text import JsonObject
from fanout.core.sampling import SAMPLING_NAMES, Sampling
from fanout.core.sampling_fields import SamplingFields
from fanout.core.schema import Credential
from fanout.dispatch.entries import Entry, FusionEntry
from fanout.dispatch.request import Request
from fanout.requests.bodies import ReturnWhen
from fanout.requests.fusions import FusibleEntry

Parameters = Mapping[str, Any]
"""Parameters that one object of a request sets itself, by the names of `schema.Sampling`; an explicit null is `None`."""


SHARED_PARAMETERS = tuple(name for name in SAMPLING_NAMES if name not in ("best_of", "logprobs", "echo", "suffix"))
"""Parameters of both endpoints; the others are those of text completions."""


class OpenAiSampling(SamplingFields, takes=SHARED_PARAMETERS, ranges={"user": (None, None), "stop": (0, 4)}):
    """Parameters of both endpoints. Fields not named here go on to OpenAI-compatible providers as they are.

    Samples are one upstream call if the provider has `n`, else a call each.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    def own_parameters(self) -> JsonObject:
        """Return the parameters that this object sets: see `Parameters`."""
        own = self.to_parameters()
        # Konko's word for "not set"; a host whose penalty is a factor would take it as one.
        if own.get("repetition_penalty") == 0:
            own["repetition_penalty"] = None
        return own

    @classmethod
    def resolve(cls, own: Parameters, request: Parameters) -> JsonObject:
        """Return `own` as Fanout's parameters. Where two of theirs are one of ours, the one not set is the request's."""
        return dict(own)

    def get_passthrough(self) -> dict[str, Any]:
        """Return the fields that only some providers know; a null is not sent, and in an entry takes the request's back."""
        return self.model_extra or {}


class OpenAiEntry(OpenAiSampling, FusibleEntry):
    """One entry of `model` written out: a model with parameters of its own, or a fusion, whose own call they are for."""


class StreamOptions(BaseModel):
    """Source: `ChatCompletionStreamOptions`."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool | None = None
    """Send the totals in a last chunk without choices."""
    include_obfuscation: bool | None = None
    """Accepted, without effect."""


class OpenAiBody(OpenAiSampling):
    """A request: parameters, and options of the answer as a whole."""

    stream: bool | None = None
    """Answer in pieces, as server-sent events."""
    stream_options: StreamOptions | None = None
    """Only with `stream`."""
    strict_parameters: bool | None = None
    """Fail an entry whose model cannot take a parameter, instead of ignoring the parameter."""
    timeout_s: float | None = Field(None, gt=0)
    """Deadline of the whole request, in seconds."""
    return_when: ReturnWhen = None
    """How many entries must have answered before the rest is cancelled: `all`, `first`, or a number."""

    defaults: ClassVar[Mapping[str, Any]] = {}
    """The contract's own defaults, which hold where the caller sets nothing."""
    question_fields: ClassVar[Set[str]] = frozenset({"messages", "prompt"})
    """Fields in which endpoints take their question."""

    @property
    @abstractmethod
    def entry_bodies(self) -> Sequence[OpenAiEntry]:
        """The entries of `model`."""

    @abstractmethod
    def to_question(self) -> Mapping[str, Any]:
        """Return the prompts or messages, by the fields of `plan.Request`."""

    def to_request(self, *, credentials: Mapping[str, Credential] | None = None, account_id: str | None = None) -> Request:
        """Return the request as `plan` takes it. The contract's own defaults are marked as such."""
        own = self.own_parameters()
        missing = {name: value for name, value in self.defaults.items() if own.get(name) is None}
        return Request(
            entries=self._to_entries(),
            sampling=Sampling(**{**self.resolve(own, {}), **missing}),
            passthrough=self.get_passthrough(),
            defaults=frozenset(missing),
            strict=bool(self.strict_parameters),
            native_n=True,
            credentials=credentials or {},
            account_id=account_id,
            **self.to_question(),
        )

    def find_faults(self) -> Iterator[Fault]:
        """Yield what is wrong between fields, of which one may stand in an entry and the other in the request."""
        for name in sorted(self.get_passthrough().keys() & self.question_fields):
            yield Fault(name, "does not belong to this endpoint")
        request = self.own_parameters()
        # An entry takes any field, to pass it on: one of the request's would go upstream.
        misplaced = type(self).model_fields.keys() | self.question_fields
        for place, entry in self._list_entries():
            for name in sorted((entry.model_extra or {}).keys() & misplaced):
                yield Fault(f"{place}.{name}", "is for the whole request: it stands beside `model`, not in it")
            own = entry.own_parameters()
            for fault in self.find_clashes({**request, **own}):
                yield Fault(f"{place}.{fault.path}" if fault.path in own else fault.path, fault.message)

    def find_clashes(self, parameters: Parameters) -> Iterator[Fault]:
        """Yield what is wrong between the parameters of one entry, the request's among them."""
        yield from ()

    def _list_entries(self) -> Iterator[tuple[str, OpenAiEntry]]:
        """Yield all entries with their paths, members of fusions among them."""
        for number, entry in enumerate(self.entry_bodies):
            yield f"model[{number}]", entry
            for place, member in enumerate(entry.members):
                yield f"model[{number}].fusion.of[{place}]", member

    def _to_entries(self) -> tuple[Entry, ...]:
        request = self.own_parameters()
        return tuple(self._to_entry(entry, request) for entry in self.entry_bodies)

    def _to_entry(self, body: OpenAiEntry, request: Parameters) -> Entry:
        entry = Entry(body.model or "", body.label, self._find_overrides(body, request), body.get_passthrough())
        if body.fusion is None:
            return entry
        members = tuple(self._to_entry(member, request) for member in body.members)
        return replace(entry, model=body.fusion.by, fusion=FusionEntry(members, body.fusion.template))

    def _find_overrides(self, entry: OpenAiEntry, request: Parameters) -> JsonObject:
        resolved = self.resolve(entry.own_parameters(), request)
        for name, default in self.defaults.items():
            # An entry's null means "the contract's default", which its provider may not have.
            if name in resolved and resolved[name] is None:
                if request.get(name) is None:
                    del resolved[name]  # the request has the default already, and marks it as one
                else:
                    resolved[name] = default
        return resolved
