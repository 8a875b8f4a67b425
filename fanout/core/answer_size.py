"""The memory that an answer takes, roughly."""

from __future__ import annotations

from fanout.core.query_size import count_characters
from fanout.core.schema import Completion


def measure_answer(completion: Completion) -> int:
    """Return about how many bytes an answer takes."""
    size = sum(map(len, completion.vectors)) if completion.vectors else 0
    if tokens := completion.tokens:
        size += 8 * len(tokens.ids or ()) + sum(64 + len(text) for text in tokens.texts or ())
    for choice in completion.choices:
        message = choice.message
        size += len(message.text) + len(message.reasoning or "") + len(message.refusal or "")
        if message.tool_calls or message.extra:
            size += count_characters(message.tool_calls) + count_characters(message.extra)
        if choice.logprobs:  # all have about as many alternatives: walking a hundred thousand takes milliseconds
            size += 64 * len(choice.logprobs) * (1 + len(choice.logprobs[0].top))
    return size
