"""A caller's request as calls are planned by it, whatever its dialect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from fanout.core.json_text import JsonObject
from fanout.core.messages import Message
from fanout.core.sampling import Sampling
from fanout.core.schema import Credential, Task
from fanout.core.value_type import value_type
from fanout.dispatch.entries import Entry

Prompt = str | tuple[int, ...]
"""Text, or the ids of one tokenizer."""


class Shape:
    """The part of a request that many requests have in common, so that what is made of it alone can be kept with it."""

    __slots__ = ("earlier", "entries", "resolution", "sampling")

    def __init__(self, entries: tuple[Entry, ...], earlier: tuple[Message, ...], sampling: Sampling) -> None:
        self.entries, self.earlier, self.sampling = entries, earlier, sampling
        self.resolution: object | None = None
        """What `plan` has last found for its entries."""


@value_type(frozen=True, slots=True)
class Request:
    """A caller's request, whatever its dialect. It has `prompts`, `messages` or `inputs`."""

    entries: tuple[Entry, ...]
    prompts: tuple[Prompt, ...] = ()
    many_prompts: bool = False
    """The prompt was a list, so each answer names its prompt."""
    messages: tuple[Message, ...] | None = None
    inputs: tuple[Prompt, ...] | None = None
    """Texts to embed, all in one call of each entry."""
    task: Task = "answer"
    earlier: tuple[Message, ...] = ()
    """Earlier messages of a conversation, which each of `prompts` continues."""
    system: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    passthrough: JsonObject = field(default_factory=dict)
    defaults: frozenset[str] = frozenset()
    """Sampling parameters that the endpoint's contract set, not the caller."""
    strict: bool = False
    """A parameter that a provider cannot take fails that entry instead of being ignored."""
    native_n: bool = False
    """`n` is sent upstream where the provider knows it: one call with n answers instead of n calls."""
    credentials: Mapping[str, Credential] = field(default_factory=dict)
    """Caller-supplied keys, by provider."""
    account_id: str | None = None
    """The account that the usage is counted for."""
    shape: Shape | None = field(default=None, compare=False, repr=False)
    """Set where requests before and after this one have the same `entries`, `earlier` and `sampling`."""

    @property
    def has_ids(self) -> bool:
        """Tell if a prompt is given as the ids of its tokens."""
        return tuple in map(type, self.prompts)
