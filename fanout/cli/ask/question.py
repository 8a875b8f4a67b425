"""A question to many models: a new message, and for each model the messages before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from fanout.core.json_text import JsonObject

Content = str | Sequence[JsonObject]
"""The content of a message in OpenAI's format: a text, or parts."""
SYSTEM_ROLES = ("system", "developer")

ANSWERED, LEFT, ALL_FAILED = 200, 499, 502
"""Statuses of a question in the log, as a server's request would have them."""


@dataclass(frozen=True, slots=True)
class AskQuestion:
    """A message to every model, and the conversation that each of them has had before."""

    models: tuple[str, ...]
    content: Content
    system: str | None = None
    parameters: JsonObject = field(default_factory=dict)
    """Sampling parameters by their names, `n` among them."""
    extra_body: JsonObject = field(default_factory=dict)
    """Fields that only some providers know."""
    timeout_s: float | None = None
    past: Mapping[str, Sequence[JsonObject]] = field(default_factory=dict)
    """Earlier messages of a conversation, by model."""

    @property
    def is_plain(self) -> bool:
        """True for a bare prompt, which text models can continue, too."""
        return isinstance(self.content, str) and not self.past and not self.extra_body

    def split(self) -> Iterator[tuple[tuple[str, ...], list[JsonObject] | None]]:
        """Yield the requests to make: the models of each, and its messages; `None`: its prompt alone."""
        message: JsonObject = {"role": "user", "content": self.content}
        if not self.past:
            yield self.models, None if self.is_plain else [message]
            return
        for model in self.models:  # each has its own conversation
            yield (model,), [*self.past.get(model, ()), message]

    def follow_up(self, answers: Mapping[str, str], content: Content) -> Self:
        """Return the question that goes on with the models that answered; `answers` by model."""
        message: JsonObject = {"role": "user", "content": self.content}
        past = {
            model: [*self.past.get(model, ()), message, {"role": "assistant", "content": text}]
            for model, text in answers.items()
        }
        models = tuple(dict.fromkeys(model for model in self.models if model in past)) or tuple(past)
        return replace(self, models=models, content=content, past=past)

    def to_json(self) -> JsonObject:
        """Return the question as the log keeps it."""
        fields: JsonObject = {"model": list(self.models), "system": self.system, **self.parameters, **self.extra_body}
        fields |= {"prompt": self.content} if isinstance(self.content, str) else {"content": self.content}
        return {name: value for name, value in {**fields, "past": dict(self.past)}.items() if value not in (None, {}, [])}


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """A request as the log keeps it, or as a server's history does, of whichever dialect."""

    content: Content
    system: str | None
    earlier: Sequence[JsonObject]
    """The messages before it, the same for all models."""
    past: Mapping[str, Sequence[JsonObject]]
    """The messages before it, by model, where each has its own."""

    def build_past(self, models: Sequence[str]) -> Mapping[str, Sequence[JsonObject]]:
        """Return the messages before it for each of these models."""
        return self.past or (dict.fromkeys(models, self.earlier) if self.earlier else {})


def read_kept(kept: JsonObject) -> KeptRequest:
    """Read a request that was kept."""
    system = kept.get("system") or kept.get("instructions")
    messages = kept.get("messages") or kept.get("input")
    if not isinstance(messages, list) or not messages:
        content = kept.get("prompt") or kept.get("content") or messages or ""
        is_single = isinstance(content, list) and len(content) == 1 and isinstance(content[0], str)
        return KeptRequest(content[0] if is_single else content, system, (), kept.get("past", {}))
    *earlier, last = [message for message in messages if isinstance(message, dict)] or [{}]
    heads = [message["content"] for message in earlier if message.get("role") in SYSTEM_ROLES and message.get("content")]
    talk = [message for message in earlier if message.get("role") not in SYSTEM_ROLES]
    return KeptRequest(last.get("content") or "", system or "\n\n".join(filter(_is_text, heads)) or None, talk, {})


def _is_text(content: object) -> bool:
    return isinstance(content, str)
