"""Content of an answer that has a price of its own beside the tokens: what was made, searched or run for it.

Providers that state no cost count such content in their tokens only in part, or not at all.

Source: https://platform.openai.com/docs/pricing, https://groq.com/pricing, https://docs.z.ai/guides/tools/web-search (2026-11).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from fanout.core.json_text import JsonObject
from fanout.core.schema import Choice
from fanout.core.usage import Usage
from fanout.providers.mapping.json_fields import as_object, as_objects

OTHER_ITEMS = "output_items"
"""Field of an answer for items of the Responses format that are neither text, thoughts nor calls of functions."""
MEDIA: Mapping[str, str] = {
    "images": "output_image_tokens",
    "audio": "output_audio_tokens",
    "videos": "output_video_tokens",
}
"""Field of an answer → its tokens, where the usage counts them."""
FIELDS = frozenset({*MEDIA, "executed_tools", "web_search"})
"""Fields of an answer that tell of what was made or done for it: by models; Groq; Z.ai."""
ITEMS: Mapping[str, str] = {
    "web_search_call": "web_searches",
    "file_search_call": "storage_searches",
    "code_interpreter_call": "code_executions",
    "image_generation_call": "images",
}
"""Type of an item → unit; genai-prices knows some."""


def add_priced_content(usage: Usage | None, choices: tuple[Choice, ...]) -> Usage | None:
    """Return the usage with the units, see `Usage.priced_apart`, of the content that its tokens do not tell of."""
    # Nearly every answer is text alone, and a provider's own figure includes what it made.
    if usage is None or usage.reported_cost_usd is not None:
        return usage
    for choice in choices:
        if choice.message.extra:
            break
    else:
        return usage
    # Where the usage counts an image's tokens, they are its price.
    counted = usage.priced_apart or {}
    units = Counter(unit for choice in choices for unit in _list_units(choice.message.extra))
    news = {unit: count for unit, count in units.items() if not (counted.get(unit) or counted.get(MEDIA.get(unit, "")))}
    return replace(usage, priced_apart={**counted, **news}) if news else usage


def _list_units(extra: JsonObject) -> Iterator[str]:
    yield from FIELDS & extra.keys()
    for item in as_objects(extra.get(OTHER_ITEMS)):
        # Opening a page that was found costs nothing more.
        if (unit := ITEMS.get(str(item.get("type")))) and as_object(item.get("action")).get("type", "search") == "search":
            yield unit
    # OpenAI's models that search before each answer say so in their sources alone.
    if OTHER_ITEMS not in extra and any(note.get("type") == "url_citation" for note in as_objects(extra.get("annotations"))):
        yield "cited_searches"
