"""Embeddings: for each model and text a vector, and the facts about each model's answer.

Source: openai 3.51.0, `types/create_embedding_response.py`; `choices` and what says whose a vector is are Fanout's.
"""

from __future__ import annotations

import sys
from array import array
from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated, Literal

from typing_extensions import Doc, TypedDict

from fanout.core.schema import Completion, Outcome
from fanout.rendering.choices import render_place
from fanout.rendering.openai.answers import OpenAiHeadJson, render_openai_end, render_openai_totals
from fanout.rendering.openai.responses import ResponseChoiceJson
from fanout.rendering.shared import CostTotalsJson, TotalTimingJson

EncodingFormat = Literal["float", "base64"]


class EmbeddingJson(TypedDict):
    """The vector of one text by one model."""

    object: Literal["embedding"]
    index: Annotated[int, Doc("Running number over entries and texts.")]
    embedding: Annotated[list[float] | str, Doc("The vector; with `encoding_format: base64` its 32-bit floats in base64.")]
    entry: Annotated[int, Doc("Position in `model`, sets written out.")]
    input_index: Annotated[int, Doc("Position in `input`.")]
    label: Annotated[str, Doc("Your name for the entry; by default the model's.")]


class EmbeddingsUsageJson(TypedDict):
    prompt_tokens: Annotated[int, Doc("Tokens of the texts.")]
    total_tokens: Annotated[int, Doc("The same.")]


class EmbeddingsJson(CostTotalsJson):
    """OpenAI's list of embeddings, with those of every model."""

    id: Annotated[str, Doc("A UUID.")]
    object: Literal["list"]
    created: Annotated[int, Doc("Unix seconds.")]
    model: Annotated[str, Doc("The label of the one entry, or all labels joined by commas.")]
    data: Annotated[Sequence[EmbeddingJson], Doc("The vectors: entry by entry, and text by text.")]
    choices: Annotated[Sequence[ResponseChoiceJson], Doc("Facts about each model's answer, and the failures in their places.")]
    usage: Annotated[EmbeddingsUsageJson | None, Doc("Tokens of all answers; null: no provider reported any.")]
    unknown_usage: Annotated[int, Doc("Answers whose usage the provider did not report.")]
    timing: Annotated[TotalTimingJson, Doc("Milliseconds that the request took.")]


def render_embeddings(
    outcomes: Sequence[Outcome], head: OpenAiHeadJson, total_s: float, encoding_format: EncodingFormat
) -> EmbeddingsJson:
    """Return the answer to a request of which at least one call was answered."""
    totals = render_openai_totals(outcomes, total_s)
    tokens = totals["usage"]["prompt_tokens"] if totals["usage"] else None
    return {
        **head,
        "object": "list",
        "data": [vector for outcome in outcomes for vector in _render_vectors(outcome, encoding_format)],
        "choices": [render_facts(outcome, head["created"]) for outcome in outcomes],
        "usage": None if tokens is None else {"prompt_tokens": tokens, "total_tokens": tokens},
        "unknown_usage": totals["unknown_usage"],
        "cost_usd": totals["cost_usd"],
        "cost_unknown": totals["cost_unknown"],
        "timing": totals["timing"],
    }


def render_facts(outcome: Outcome, created: int) -> ResponseChoiceJson:
    """Return the facts about an answer that is no message."""
    choice = outcome.result.choices[0] if isinstance(outcome.result, Completion) else None
    return {**render_place(outcome.call), **render_openai_end(outcome, choice, 0, created)}


def _render_vectors(outcome: Outcome, encoding_format: EncodingFormat) -> list[EmbeddingJson]:
    call, vectors = outcome.call, outcome.result.vectors if isinstance(outcome.result, Completion) else ()
    # By the call's place, not by what has come: a failed model leaves a gap instead of moving the vectors that follow.
    first = call.index * len(call.query.inputs or ())
    return [
        {
            "object": "embedding",
            "index": first + place,
            "embedding": b64encode(vector).decode() if encoding_format == "base64" else _read_numbers(vector),
            "entry": call.entry,
            "input_index": place,
            "label": call.target.label,
        }
        for place, vector in enumerate(vectors)
    ]


def _read_numbers(vector: bytes) -> list[float]:
    numbers = array("f", vector)
    # Vectors are little-endian everywhere, as OpenAI's base64 is.
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
