"""Messages that stand in a stream where deltas should; some hosts send all of them again and again (Perplexity)."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.json_text import JsonObject
from fanout.providers.mapping.choice_builder import ChoiceBuilder
from fanout.providers.mapping.other_content import REASONING_NAMES, list_news


class WholeMessages:
    """The messages of one choice."""

    def __init__(self, builder: ChoiceBuilder) -> None:
        reasoning = _KnownText(builder.reasoning)
        self._texts = {"content": _KnownText(builder.text), "refusal": _KnownText(builder.refusal)}
        self._texts.update(dict.fromkeys(REASONING_NAMES, reasoning))
        self._last: JsonObject = {}

    def find_news(self, message: JsonObject) -> JsonObject:
        """Return what a message adds to what has come."""
        news: JsonObject = {}
        for name, value in message.items():
            if name in self._texts and isinstance(value, str):
                news[name] = self._texts[name].find_news(value)
            elif isinstance(value, list | dict):
                news[name], self._last[name] = list_news(self._last.get(name), value), value
            else:
                news[name] = value
        return news


class _KnownText:
    """The pieces of a text, which others add to."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self._pieces = pieces
        self._counted = self._characters = 0

    def find_news(self, text: str) -> str:
        self._characters += sum(map(len, self._pieces[self._counted :]))
        self._counted = len(self._pieces)
        # Joined only for a text of that length, so that many short pieces do not cost the square of their number.
        is_whole = len(text) >= self._characters and text.startswith("".join(self._pieces))
        return text[self._characters :] if is_whole else text
