"""A hook that hides a word from models, and shows it again in their answers; it refuses the word `forbidden` on either side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import fanout
from fanout import adapters

SECRET, SHOWN = "Ada", "PERSON"


def create() -> RedactingHook:
    """See `docs/operations.md`."""
    return RedactingHook()


class RedactingHook(fanout.Hook):
    async def before(self, call: adapters.Call) -> adapters.Query | None:
        texts = [call.query.prompt or "", *(str(message.content) for message in call.query.messages or ())]
        if any("forbidden" in text for text in texts):
            raise fanout.HookRefusalError("nobody may ask about this")
        messages = call.query.messages and tuple(
            replace(message, content=_swap(message.content, SECRET, SHOWN)) for message in call.query.messages
        )
        prompt = _swap(call.query.prompt, SECRET, SHOWN)
        return replace(call.query, prompt=prompt, messages=messages)

    async def after(self, call: adapters.Call, answer: adapters.Completion) -> adapters.Completion | None:
        if any("forbidden" in choice.message.text for choice in answer.choices):
            raise fanout.HookRefusalError("the answer tells too much")
        return replace(
            answer,
            choices=tuple(
                replace(choice, message=replace(choice.message, text=_swap(choice.message.text, SHOWN, SECRET)))
                for choice in answer.choices
            ),
        )


def _swap(text: Any, old: str, new: str) -> Any:
    return text.replace(old, new) if isinstance(text, str) else text
