"""Answers as they arrive: the base of the views, and what several of them print."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from fanout.cli.output import format_usd
from fanout.core.json_text import JsonObject
from fanout.core.shown_text import to_safe_text

FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})[^\n]*\n(?P<code>.*?)(?:^(?P=fence)[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
"""A fenced code block; one that is not closed goes on to the end."""
NEXT_STEPS = {
    "auth": "`fanout check --live` tells what to do",
    "quota": "add credit there, or ask another model",
    "rate_limit": "try again later",
    "server": "try again later",
}
"""What to do about a failure that only time or the account's owner mends, by its kind; other failures say it themselves."""


@dataclass(slots=True)
class ShownAnswer:
    """An answer of a view."""

    label: str
    text: str = ""
    choice: JsonObject | None = None
    """The choice as `POST /v1/completion` returns it, once it has ended."""

    @property
    def failed(self) -> bool | None:
        """True for a failure, `None` as long as the answer has not ended."""
        return None if self.choice is None else self.choice["error"] is not None

    @property
    def code(self) -> str | None:
        """The first fenced code block."""
        found = FENCE.search(self.text)
        return found["code"] if found else None


class AnswerView:
    """Answers of one question, by index: `begin`, then `add` and `finish` as pieces arrive. This base shows nothing."""

    def __init__(self) -> None:
        self.answers: dict[int, ShownAnswer] = {}

    @property
    def failed(self) -> int:
        """Number of answers that failed or have not ended."""
        return sum(answer.failed is not False for answer in self.answers.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the view."""

    def begin(self, labels: Mapping[int, str]) -> None:
        """Take the labels of the answers to come, by index."""
        self.answers = {index: ShownAnswer(label) for index, label in labels.items()}

    def add(self, index: int, text: str) -> None:
        """Append a piece of text to an answer."""
        self.answers[index].text += to_safe_text(text)  # an answer's escape sequences must not reach the terminal

    def finish(self, index: int, choice: JsonObject) -> None:
        """End an answer whose text has been added."""
        self.answers[index].choice = choice


def build_labels(places: Iterable[tuple[int, str, str, int]]) -> dict[int, str]:
    """Return the heading of each answer by index, from its index, label, model and sample; several samples are numbered."""
    places = list(places)
    sampled = {(label, model) for _, label, model, sample in places if sample}
    return {index: f"{label} #{sample + 1}" if (label, model) in sampled else label for index, label, model, sample in places}


def format_figures(choice: JsonObject) -> str:
    """Return the line below an answer: tokens, time and cost, or the reason of its failure."""
    if choice["error"]:
        return _format_error(choice)
    timing, tokens, cost = choice["timing"], (choice["usage"] or {}).get("completion_tokens"), choice["cost_usd"]
    reason = choice["finish_reason"] or choice.get("native_finish_reason")
    parts = [
        "tokens unknown" if tokens is None else f"{tokens} token{'' if tokens == 1 else 's'}",
        f"{timing['total_ms'] / 1e3:.2f} s",
        "cost unknown" if cost is None else format_usd(cost),
        f"first after {timing['ttft_ms']} ms" if timing["ttft_ms"] is not None else "",
        f"{timing['tokens_per_second']:.0f} tokens/s" if timing["tokens_per_second"] else "",
        f"queued {timing['queued_ms']} ms" if timing["queued_ms"] else "",
        f"{timing['attempts']} attempts" if timing["attempts"] > 1 else "",
        "" if reason == "stop" else f"ended: {reason}",
        f"refused: {choice['refusal']}" if choice.get("refusal") else "",
        _format_fusion(choice["fusion"]) if choice.get("fusion") else "",
        _format_names("also", choice.get("other_content") or ()),
        _format_names("ignored", choice.get("ignored_parameters", ())),
        _format_names("adjusted", choice.get("adjusted_parameters", ())),
    ]
    return " · ".join(part for part in parts if part)


def _format_fusion(fusion: JsonObject) -> str:
    """Return how many answers a fused one is made of, and the cost of all."""
    used = sum(member["left_out"] is None for member in fusion["members"])
    cost = "cost unknown" if fusion["cost_usd"] is None else format_usd(fusion["cost_usd"])
    lacking = f", {fusion['cost_unknown']} of unknown cost" if fusion["cost_unknown"] else ""
    return f"made of {used} of {len(fusion['of'])} answers, together {cost}{lacking}"


def _format_names(title: str, names: Iterable[str]) -> str:
    return f"{title}: {', '.join(names)}" if names else ""


def _format_error(choice: JsonObject) -> str:
    error = choice["error"]
    attempts = choice["timing"]["attempts"] if "timing" in choice else 0
    after = f" after {attempts} attempts" if attempts > 1 else ""
    status = f" {error['upstream_status']}" if error.get("upstream_status") else ""
    sentence = str(error["message"] or error["code"])
    if error.get("retry_after_s"):
        step = f"try again in {error['retry_after_s']:.0f} s"
    else:
        step = "" if "try again" in sentence.lower() else NEXT_STEPS.get(error["kind"], "")
    shown = f"{sentence.rstrip('.')}; {step}" if step else sentence
    return to_safe_text(f"{error['kind'].replace('_', ' ')}{status}{after}: {shown}")


def format_totals(answers: Sequence[ShownAnswer]) -> str:
    """Return the closing line below several answers: their cost, and which was the fastest and the cheapest."""
    ended = [(answer.label, answer.choice) for answer in answers if answer.choice and not answer.choice["error"]]
    if len(ended) < 2:
        return ""
    priced = [(choice["cost_usd"], label) for label, choice in ended if choice["cost_usd"] is not None]
    fastest_ms, fastest = min((choice["timing"]["total_ms"], label) for label, choice in ended)
    lacking = len(ended) - len(priced)
    total = format_usd(sum(cost for cost, _ in priced)) if priced else "unknown"
    parts = [f"total cost {total}", f"{lacking} of unknown cost" if lacking and priced else ""]
    parts.append(f"fastest: {fastest} ({fastest_ms / 1e3:.2f} s)")
    if len({cost for cost, _ in priced}) > 1:
        cost, cheapest = min(priced)
        parts.append(f"cheapest: {cheapest} ({format_usd(cost)})")
    return " · ".join(filter(None, parts))


def list_code(answers: Sequence[ShownAnswer]) -> Iterator[str]:
    """Yield the first code block of each answer that has one, below its label where there are several answers."""
    for answer in answers:
        if (code := answer.code) is not None:
            yield f"== {answer.label}\n{code}" if len(answers) > 1 else code
