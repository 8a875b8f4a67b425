"""Conversations in OpenAI's shape, read for formats that have another shape and cannot carry all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace

from fanout.core.errors import ProviderError
from fanout.core.json_text import JsonObject
from fanout.core.messages import Content, ImagePart, Message, OtherPart, TextPart
from fanout.core.schema import FittedParameters, Query
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_object

SYSTEM_ROLES = frozenset({"system", "developer"})
CACHE_CONTROL = "cache_control"
"""Mark of a part up to which the provider keeps the prompt. Source: Anthropic; OpenRouter."""
READ = frozenset({"tool_calls", "tool_call_id", "function_call"})
"""Further fields of messages that every format reads, or refuses."""
MAX_LEFT_OUT = 16
MAX_NAME_CHARS = 80


def list_messages(origin: Origin, query: Query) -> Sequence[Message]:
    """Return the messages; a prompt is one of the user's.

    Raises:
        ProviderError: the prompt is token ids, which mean something to one tokenizer only.
    """
    return query.messages if query.messages is not None else (Message("user", get_prompt(origin, query)),)


def get_prompt(origin: Origin, query: Query) -> str:
    """Return the prompt as text.

    Raises:
        ProviderError: it is token ids.
    """
    # Decoding them would need the tokenizer that made them, which nobody names.
    if query.prompt_tokens is not None:
        raise origin.request_error("takes no token ids; send the prompt as text", "prompt")
    return query.prompt or ""


def split_system(origin: Origin, query: Query) -> tuple[list[TextPart], list[Message]]:
    """Return the texts of the system messages, and the others: for formats that have a place of its own for the first.

    A message is one text, but for marks of the cache: what they are to keep ends there.
    """
    messages = list_messages(origin, query)
    systems = [message for message in messages if message.role in SYSTEM_ROLES]
    parts = [part for message in systems for part in _split_at_marks(message, to_text(origin, message.content))]
    return [part for part in parts if part.text], [message for message in messages if message.role not in SYSTEM_ROLES]


def _split_at_marks(message: Message, text: str) -> Iterator[TextPart]:
    begun = 0
    place = 0
    for part in message.content if isinstance(message.content, tuple) else ():
        if isinstance(part, TextPart):
            place += len(part.text)
            if mark := get_cache_mark(part):
                yield TextPart(text[begun:place], {CACHE_CONTROL: mark})
                begun = place
    mark = get_cache_mark(message)
    yield TextPart(text[begun:], {CACHE_CONTROL: mark} if mark else {})


def get_cache_mark(marked: Message | TextPart | ImagePart | OtherPart) -> JsonObject:
    """Return the `cache_control` of a message or a part; empty where it has none."""
    return {} if isinstance(marked, OtherPart) else as_object(marked.extra.get(CACHE_CONTROL))


def find_last_mark(message: Message) -> JsonObject:
    """Return the last `cache_control` of a message or its parts, for formats that have it as one block."""
    marks = [get_cache_mark(part) for part in message.content] if isinstance(message.content, tuple) else []
    return next(filter(None, (get_cache_mark(message), *reversed(marks))), {})


def to_text(origin: Origin, content: Content | None) -> str:
    """Return content as a format has it that takes text alone.

    Raises:
        ProviderError: it holds something else.
    """
    if isinstance(content, str):
        return content
    texts = [part.text for part in content or () if isinstance(part, TextPart)]
    # Refused, not dropped: a system message without its image would be another instruction.
    if len(texts) < len(content or ()):
        raise origin.request_error("takes only text in messages of the system, of tools and of its own")
    return "".join(texts)


def part_error(origin: Origin, part: OtherPart) -> ProviderError:
    """Return the failure of a request with a part of a type that the format does not have."""
    return origin.request_error(f"takes text and images, no parts of type `{str(part.raw.get('type'))[:40]}`")


def report_left_out(
    fitted: FittedParameters,
    messages: Sequence[Message] | None,
    *,
    has_details: bool = False,
    takes: Set[str] = frozenset(),
) -> FittedParameters:
    """Return `fitted` with what the format leaves out of a conversation, named once.

    Args:
        fitted: the parameters.
        messages: the conversation.
        has_details: the format has `image_url.detail`.
        takes: further fields of messages and their parts that the format has.
    """
    ignored: dict[str, None] = {}
    for message in messages or ():
        # A tool's name is not lost: its call has it.
        names = (name for name in message.extra if name != "name" or message.role not in ("tool", "function"))
        _note_fields(ignored, "messages", message.extra, names, READ | takes)
        for part in message.content if isinstance(message.content, tuple) else ():
            if not isinstance(part, OtherPart):
                _note_fields(ignored, "messages.content", part.extra, part.extra, takes)
            if not has_details and isinstance(part, ImagePart) and part.detail not in (None, "auto"):
                ignored["image_url.detail"] = None
    # The caller chooses the names, and each answer repeats them.
    news = [name for name in ignored if name not in fitted.ignored][:MAX_LEFT_OUT]
    return replace(fitted, ignored=(*fitted.ignored, *news)) if news else fitted


def _note_fields(
    ignored: dict[str, None], path: str, fields: Mapping[str, object], names: Iterable[str], taken: Set[str]
) -> None:
    for name in names:
        if fields[name] and name not in taken and len(ignored) < MAX_LEFT_OUT:
            ignored[CACHE_CONTROL if name == CACHE_CONTROL else f"{path}.{name}"[:MAX_NAME_CHARS]] = None
