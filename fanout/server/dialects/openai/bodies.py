"""The fields that requests in OpenAI's two dialects, text and chat, have in common.

Source: https://github.com/openai/openai-openapi; `repetition_penalty` is Konko's, `top_k` LangChain's for Konko.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fanout.core.faults import Fault
from fanout.core.sampling import SAMPLING_NAMES, SamplingFields
from fanout.dispatch.plan import Entry
from fanout.server.request_body import MAX_FIELDS, ReturnWhen

Own = Mapping[str, Any]
"""What one object of a request says itself, by the names of `schema.Sampling`; a `null` that was written is `None`."""


SHARED = tuple(name for name in SAMPLING_NAMES if name not in ("best_of", "logprobs", "echo", "suffix"))
"""Parameters of both dialects; the others are those of text completions."""


class OpenAiSampling(SamplingFields, takes=SHARED, ranges={"user": (None, None)}):
    """The parameters that both dialects share. Fields not named here go on to OpenAI-compatible providers as they are.

    Samples are one upstream call where the provider has `n`, else a call each.
    """

    model_config = ConfigDict(extra="allow", strict=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MAX_FIELDS:
            raise ValueError(f"{len(value)} fields are not allowed: at most {MAX_FIELDS}")
        return value

    def own(self) -> dict[str, Any]:
        """See `Own`."""
        said = self.to_parameters()
        if said.get("repetition_penalty") == 0:
            said["repetition_penalty"] = None
        return said

    @classmethod
    def settled(cls, own: Own, request: Own) -> dict[str, Any]:
        """`own` where one parameter of ours is two of theirs: the one that is not said is the request's."""
        return dict(own)

    def passed_on(self) -> Mapping[str, Any]:
        """Fields that only some providers know; one that is null is not sent, and in an entry takes the request's back."""
        return self.model_extra or {}


class OpenAiEntry(OpenAiSampling):
    """One entry of `model` written out: a model with parameters of its own."""

    model: str = Field(min_length=1, max_length=256)
    label: str | None = Field(None, min_length=1, max_length=256)
    """Your name for this entry; by default the model's."""


class StreamOptions(BaseModel):
    """Source: `ChatCompletionStreamOptions`."""

    model_config = ConfigDict(extra="ignore", strict=True, use_attribute_docstrings=True)

    include_usage: bool | None = None
    """A last chunk without choices holds the totals."""
    include_obfuscation: bool | None = None


class OpenAiBody(OpenAiSampling):
    """A request: parameters, and what concerns the answer as a whole."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    """Only with `stream`."""
    strict_parameters: bool | None = None
    """What a model cannot take fails its entry instead of being ignored."""
    timeout_s: float | None = Field(None, gt=0)
    """The deadline of it all."""
    return_when: ReturnWhen = None
    """How many entries must have answered before the rest is cancelled."""

    defaults: ClassVar[Mapping[str, Any]] = {}
    """The contract's own, which hold where the caller says nothing."""

    @property
    @abstractmethod
    def listed(self) -> Sequence[OpenAiEntry]:
        """The entries of `model`."""

    @abstractmethod
    def question(self) -> Mapping[str, Any]:
        """What is asked, by the fields of `plan.Request`."""

    def entries(self) -> tuple[Entry, ...]:
        """The entries with what they ask otherwise than the request."""
        request = self.own()
        return tuple(
            Entry(entry.model, entry.label, self._overrides(entry, request), entry.passed_on()) for entry in self.listed
        )

    def faults(self) -> Iterator[Fault]:
        """What is wrong between fields, of which one may stand in an entry and the other in the request."""
        for name in sorted(self.passed_on().keys() & QUESTIONS):
            yield Fault(name, "is not what is asked at this address")
        request = self.own()
        for number, entry in enumerate(self.listed):
            for name in sorted(entry.passed_on().keys() & WHOLE):
                yield Fault(f"model[{number}].{name}", "is for the whole request: it stands beside `model`, not in it")
            own = entry.own()
            for fault in self.clashes({**request, **own}):
                yield Fault(f"model[{number}].{fault.path}" if fault.path in own else fault.path, fault.message)

    def clashes(self, asked: Own) -> Iterator[Fault]:
        """What is wrong between the parameters of one entry, the request's among them."""
        yield from ()

    def _overrides(self, entry: OpenAiEntry, request: Own) -> dict[str, Any]:
        settled = self.settled(entry.own(), request)
        for name, default in self.defaults.items():
            if name in settled and settled[name] is None:
                if request.get(name) is None:
                    del settled[name]  # the request has the default already, and knows it as one
                else:
                    settled[name] = default
        return settled


QUESTIONS = frozenset({"messages", "prompt"})
WHOLE = QUESTIONS | OpenAiBody.model_fields.keys() - set(SHARED)
"""Fields that have no meaning in one entry."""
