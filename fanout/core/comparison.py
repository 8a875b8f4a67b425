"""The answers to one request side by side, as a program reads them, and as a notebook shows them."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import SupportsIndex, overload

from typing_extensions import TypedDict

from fanout.core.fusion import FusedMembers
from fanout.core.schema import Choice, Completion, Failure, FailureKind, FinishReason, Outcome, Timing
from fanout.core.usage import Usage, UsageTotals
from fanout.core.value_type import value_type

MAX_REPR_CHARS = 60
"""Longest text in a `repr`."""


class ChoiceRecord(TypedDict):
    """An answer as one flat row, with plain values: `pandas.DataFrame(comparison.to_records())`."""

    index: int
    entry: int
    sample: int
    model: str
    label: str
    provider: str | None
    upstream_model: str | None
    text: str
    finish_reason: FinishReason | None
    failure: FailureKind | None
    error: str | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cost_usd: float | None
    ttft_s: float | None
    total_s: float
    queued_s: float
    attempts: int


class ComparisonDict(TypedDict):
    """A comparison as plain values."""

    choices: list[ChoiceRecord]
    input_tokens: int | None
    output_tokens: int | None
    unknown_usage: int
    cost_usd: float | None
    cost_unknown: int
    created: float
    total_s: float
    overhead_s: float
    metadata: dict[str, str]


@value_type(frozen=True, slots=True)
class CompletionChoice:
    """One answer of a comparison: a choice of a call, or the failure in its place."""

    index: int
    choice_index: int
    """Number among the call's choices; above 0 only where `n` was sent upstream."""
    outcome: Outcome
    choice: Choice | None
    created: int
    """Unix seconds."""

    @property
    def label(self) -> str:
        """The caller's name for the entry."""
        return self.outcome.call.target.label

    @property
    def model(self) -> str:
        """The model as the caller wrote it."""
        return self.outcome.call.target.name

    @property
    def text(self) -> str:
        """The answer's text, or as much of it as had arrived before the call failed."""
        if self.choice is not None:
            return self.choice.message.text
        # What a broken stream delivered was paid for and read: it is shown, not thrown away.
        return (self.failure and self.failure.partial) or ""

    @property
    def failure(self) -> Failure | None:
        """The failure in place of the answer; as text it is its sentence."""
        return self.outcome.result if isinstance(self.outcome.result, Failure) else None

    @property
    def fusion(self) -> FusedMembers | None:
        """The members that a fused answer was made of; `None`: it is none."""
        return self.outcome.call.fusion

    @property
    def usage(self) -> Usage:
        """The tokens of the call; each count is `None` if it was not reported, or if the call failed."""
        # Never `None` itself: `answer.usage.output_tokens` must not raise in a loop where one model failed.
        return (self.outcome.result.usage if isinstance(self.outcome.result, Completion) else None) or Usage()

    @property
    def cost_usd(self) -> float | None:
        """The price of the call in US dollars; `None`: not known."""
        return self.outcome.cost.usd if self.outcome.cost else None

    @property
    def timing(self) -> Timing:
        """All durations of the call."""
        return self.outcome.timing

    @property
    def ttft_s(self) -> float | None:
        """Seconds to the first piece; `None` for an answer that was not streamed."""
        return self.outcome.timing.first_token_s

    @property
    def total_s(self) -> float:
        """Seconds in all, queue and retries included."""
        return self.outcome.timing.total_s

    def to_record(self) -> ChoiceRecord:
        """Return the answer as one flat row."""
        call, usage, result = self.outcome.call, self.usage, self.outcome.result
        return {
            "index": self.index,
            "entry": call.entry,
            # With `n` sent upstream one call holds several samples: each still needs a number of its own.
            "sample": call.sample + self.choice_index,
            "model": self.model,
            "label": self.label,
            "provider": call.target.provider,
            # The provider's own report first: an alias may be served by another snapshot from one day to the next.
            "upstream_model": (result.model if isinstance(result, Completion) else None) or call.target.model,
            "text": self.text,
            "finish_reason": self.choice.finish_reason if self.choice else None,
            "failure": self.failure.kind if self.failure else None,
            "error": self.failure.message if self.failure else None,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": usage.cached_input_tokens,
            "cost_usd": self.cost_usd,
            "ttft_s": self.ttft_s,
            "total_s": self.total_s,
            "queued_s": self.outcome.timing.queued_s,
            "attempts": self.outcome.timing.attempts,
        }

    def __str__(self) -> str:
        """Return the text, or the failure's sentence."""
        return str(self.failure) if self.failure else self.text

    def __repr__(self) -> str:
        return f"<{self.label}: {_shorten(self)}>"

    def _repr_html_(self) -> str:
        return _render_html([self])

    def describe(self) -> str:
        """Return tokens, time and cost in a few words; what is not known is left out."""
        tokens = self.usage.output_tokens
        parts = [
            f"{tokens} token{'' if tokens == 1 else 's'}" if tokens is not None else "",
            f"{self.total_s:.2f} s",
            f"${self.cost_usd:.6f}".rstrip("0").rstrip(".") if self.cost_usd is not None else "",
        ]
        return ", ".join(filter(None, parts))


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """The answers to one request side by side, in its order."""

    choices: tuple[CompletionChoice, ...]
    totals: UsageTotals
    created: float
    """Unix seconds."""
    total_s: float
    overhead_s: float
    """The part of `total_s` that exceeds the slowest call's."""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def cost_usd(self) -> float | None:
        """The sum of the known prices in US dollars; `None`: none is known."""
        return self.totals.cost_usd

    def __iter__(self) -> Iterator[CompletionChoice]:
        return iter(self.choices)

    def __len__(self) -> int:
        return len(self.choices)

    @overload
    def __getitem__(self, key: SupportsIndex | str) -> CompletionChoice: ...

    @overload
    def __getitem__(self, key: slice) -> tuple[CompletionChoice, ...]: ...

    def __getitem__(self, key: SupportsIndex | slice | str) -> CompletionChoice | tuple[CompletionChoice, ...]:
        """Return an answer by its place, or the first with that label; of a slice, its answers."""
        # Places and errors as a tuple has them, so that a program need not learn another rule.
        if not isinstance(key, str):
            return self.choices[key]
        for choice in self.choices:
            if choice.label == key:
                return choice
        raise KeyError(f"no answer has the label `{key}`; there are: {', '.join(choice.label for choice in self.choices)}")

    def to_records(self) -> list[ChoiceRecord]:
        """Return a flat row for each answer, as pandas takes them."""
        return [choice.to_record() for choice in self.choices]

    def to_dict(self) -> ComparisonDict:
        """Return the comparison as plain values, which JSON can hold."""
        totals = self.totals
        return {
            "choices": self.to_records(),
            "input_tokens": totals.input_tokens,
            "output_tokens": totals.output_tokens,
            "unknown_usage": totals.unknown_usage,
            "cost_usd": totals.cost_usd,
            "cost_unknown": totals.cost_unknown,
            "created": self.created,
            "total_s": self.total_s,
            "overhead_s": self.overhead_s,
            "metadata": dict(self.metadata),
        }

    def __repr__(self) -> str:
        return f"<Comparison: {'; '.join(f'{choice.label}: {_shorten(choice)}' for choice in self.choices)}>"

    def _repr_html_(self) -> str:
        return _render_html(self.choices)


def _shorten(choice: CompletionChoice) -> str:
    # One line: a REPL prints this for every answer, and answers are full of line breaks.
    text = " ".join(str(choice).split())
    short = text if len(text) <= MAX_REPR_CHARS else f"{text[: MAX_REPR_CHARS - 1]}…"
    return f"{choice.failure.kind}: {short}" if choice.failure else f"{short!r}, {choice.describe()}"


def _render_html(choices: tuple[CompletionChoice, ...] | list[CompletionChoice]) -> str:
    """Return the answers side by side; every text is escaped, for a model may write tags."""
    cell = "text-align: left; vertical-align: top; white-space: pre-wrap"
    heads = "".join(f'<th style="text-align: left">{html.escape(choice.label)}</th>' for choice in choices)
    texts = "".join(
        f'<td style="{cell}{"; color: #b00" if choice.failure else ""}">{html.escape(str(choice))}</td>' for choice in choices
    )
    figures = "".join(
        f'<td style="text-align: left; opacity: .6">{html.escape("" if choice.failure else choice.describe())}</td>'
        for choice in choices
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody><tr>{texts}</tr><tr>{figures}</tr></tbody></table>"
