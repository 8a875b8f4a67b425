"""Text completions: a choice's `text`, and log probabilities as four parallel arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from typing_extensions import Doc, TypedDict

from fanout.core.schema import Call, Choice, Delta, Outcome
from fanout.rendering.choices import (
    BesideTextJson,
    LegacyLogprobsJson,
    render_beside_text,
    render_legacy_logprobs,
    render_place,
)
from fanout.rendering.comparison import TextJson
from fanout.rendering.openai.answers import (
    Dialect,
    OpenAiAnswerJson,
    OpenAiChunkJson,
    OpenAiEndJson,
    OpenAiHeadJson,
    find_fingerprint,
    get_partial,
    number_choices,
    render_openai_end,
    render_openai_totals,
)


class TextFragmentJson(TypedDict):
    text: str
    logprobs: LegacyLogprobsJson | None


class TextEndFragmentJson(TextFragmentJson, BesideTextJson):
    """A choice's own fields in its last chunk."""


class TextChoiceJson(TextJson, BesideTextJson, OpenAiEndJson):
    """One answer, or why there is none."""


class TextPieceJson(TextJson):
    """A piece of one answer's text, as it came."""

    finish_reason: Annotated[None, Doc("null: more follows.")]


class TextCompletionJson(OpenAiAnswerJson):
    """OpenAI's text completion, with a choice for every answer."""

    object: Literal["text_completion"]
    choices: Annotated[Sequence[TextChoiceJson], Doc("The answers, and the failures in their places.")]


class TextChunkJson(OpenAiChunkJson):
    """Data of one event. `data: [DONE]` ends the stream."""

    object: Literal["text_completion"]
    choices: Annotated[Sequence[TextChoiceJson | TextPieceJson], Doc("One; none in the chunk of the totals.")]


class TextDialect(Dialect):
    """Text completions."""

    chunk_object = "text_completion"

    def render_answer(self, outcomes: Sequence[Outcome], head: OpenAiHeadJson, total_s: float) -> TextCompletionJson:
        """Return the answer to a request."""
        return {
            **head,
            "object": "text_completion",
            "choices": [_render_choice(*numbered, head["created"]) for numbered in number_choices(outcomes)],
            "system_fingerprint": find_fingerprint(outcomes),
            **render_openai_totals(outcomes, total_s),
        }

    def open_choice(self, first: Delta | None) -> None:
        """Return nothing: a text begins with its first piece."""
        return

    def render_piece(self, call: Call, delta: Delta, offset: int) -> TextFragmentJson | None:
        """Return a piece's text."""
        if not delta.text and not delta.logprobs:
            return None
        # Log probabilities may come without text: a token can be half a character.
        return {"text": delta.text, "logprobs": render_legacy_logprobs(delta.logprobs, offset) if delta.logprobs else None}

    def close_choice(self, choice: Choice | None) -> TextEndFragmentJson:
        """Return what the answer holds beside its text; a refusal alone is shown as the text."""
        # Only now: while pieces come, a text may still follow the refusal.
        refusal = choice.message.refusal if choice and not choice.message.text else None
        return {"text": refusal or "", "logprobs": None, **render_beside_text(choice)}


TEXT = TextDialect()


def _render_choice(outcome: Outcome, choice: Choice | None, number: int, created: int) -> TextChoiceJson:
    text = choice.message.shown_text if choice else get_partial(outcome, number)
    logprobs = choice.logprobs if choice else None
    return {
        **render_place(outcome.call, number),
        "text": text or "",
        "logprobs": None if logprobs is None else render_legacy_logprobs(logprobs, 0),
        **render_beside_text(choice),
        **render_openai_end(outcome, choice, number, created),
    }
