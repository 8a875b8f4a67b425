"""Token counts of Google's generateContent format.

Source: https://ai.google.dev/api/generate-content#UsageMetadata; numbers that are 0 are left out (proto3's JSON).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fanout.core.json_text import JsonObject
from fanout.core.usage import Usage, add_known
from fanout.providers.mapping.completions import build_usage
from fanout.providers.mapping.json_fields import as_count, as_objects, as_text

MODALITIES: Mapping[str, str | None] = {
    "AUDIO": "audio",
    "IMAGE": "image",
    "DOCUMENT": "image",  # its pages are read as images
    "VIDEO": "video",
    "TEXT": None,
    "MODALITY_UNSPECIFIED": None,
    "": None,
}


def parse_usage(raw: object) -> Usage | None:
    """Return input with what came from the cache, output with thoughts, which stand beside `candidatesTokenCount`.

    Whatever is missing beside a known total is 0: proto3 leaves zeros out.
    """
    if not isinstance(raw, dict):
        return None
    prompt, tools = as_count(raw.get("promptTokenCount")), as_count(raw.get("toolUsePromptTokenCount"))
    candidates, thoughts = as_count(raw.get("candidatesTokenCount")), as_count(raw.get("thoughtsTokenCount"))
    # Only beside a total is a missing count known to be 0.
    is_known = as_count(raw.get("totalTokenCount")) is not None
    given = (prompt or 0) + (tools or 0) if is_known or prompt is not None else None
    has_output = is_known or candidates is not None or thoughts is not None
    output = (candidates or 0) + (thoughts or 0) if has_output else None
    cached, tier = as_count(raw.get("cachedContentTokenCount")), as_text(raw.get("serviceTier")).lower()
    return build_usage(given, output, cached, None, thoughts, apart=_count_apart(raw), service_tier=tier, raw=raw)


def _count_apart(raw: JsonObject) -> dict[str, int | None]:
    """Return the tokens that are not text, by modality: several of them have a price of their own."""
    heard = _count_modalities([*as_objects(raw.get("promptTokensDetails")), *as_objects(raw.get("toolUsePromptTokensDetails"))])
    apart = {f"input_{modality}_tokens": count for modality, count in heard.items()}
    if details := as_objects(raw.get("cacheTokensDetails")):
        cached = _count_modalities(details)
        apart |= {f"cache_{modality}_read_tokens": cached.get(modality, 0) for modality in heard.keys() | cached.keys()}
    spoken = _count_modalities(as_objects(raw.get("candidatesTokensDetails")))
    return apart | {f"output_{modality}_tokens": count for modality, count in spoken.items()}


def _count_modalities(details: Iterable[JsonObject]) -> dict[str, int | None]:
    counts: dict[str, int | None] = {}
    for item in details:
        modality = MODALITIES.get(as_text(item.get("modality")), "other")
        if modality and (count := as_count(item.get("tokenCount"))):
            counts[modality] = add_known(counts.get(modality), count)
    return counts
