"""A question to many models: a new message, and for each model the messages before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from fanout.core.json_text import JsonObject

Content = str | Sequence[JsonObject]
"""The content of a message in OpenAI's format: a text, or parts."""


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


def read_past(kept: JsonObject) -> tuple[Content, Mapping[str, Sequence[JsonObject]]]:
    """Return the new message and the earlier ones of a question from the log, or of a server's comparison."""
    messages = kept.get("messages")
    if isinstance(messages, list) and messages:  # a server's chat completion
        names = kept.get("model")
        entries = names if isinstance(names, list) else [names]
        earlier = [message for message in messages[:-1] if message.get("role") != "system"]
        past = {str(entry.get("model") if isinstance(entry, dict) else entry): earlier for entry in entries}
        last: Content = messages[-1].get("content") or ""
        return last, past if earlier else {}
    content: Content = kept.get("prompt") or kept.get("content") or ""
    return content, kept.get("past", {})
