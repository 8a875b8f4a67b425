"""Answers side by side: live on a terminal, plain text in a pipe."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fanout.cli.tables import format_usd
from fanout.core.json_text import JsonObject
from fanout.core.shown_text import to_safe_text

MIN_ANSWER_COLUMNS = 36
"""Width below which answers are shown one below the other."""
MIN_ANSWER_LINES = 3
"""Height below which a live answer gets one line without a frame."""
WRAP_STEP_CHARS = 1024
BORDER_STYLES = {True: "red", False: "green", None: "cyan"}


@dataclass(slots=True)
class _Answer:
    label: str
    text: str = ""
    choice: JsonObject | None = None
    """The choice as `POST /v1/completion` returns it, once it has ended."""

    @property
    def failed(self) -> bool | None:
        return None if self.choice is None else self.choice["error"] is not None


class SideBySide:
    """A view of one comparison: `begin`, then `add` and `finish` as pieces arrive; the whole is printed on exit."""

    def __init__(self, console: Console, *, diff: bool = False) -> None:
        self._console, self._diff = console, diff
        self._answers: dict[int, _Answer] = {}
        self._began = 0.0
        self._live = Live(console=console, refresh_per_second=12, transient=True, get_renderable=self._render_live)

    @property
    def failed(self) -> int:
        """Number of answers that failed or have not ended."""
        return sum(answer.failed is not False for answer in self._answers.values())

    def __enter__(self) -> Self:
        return self

    def begin(self, labels: Mapping[int, str]) -> None:
        """Show the labels of the answers to come, by index."""
        self._began = time.monotonic()
        self._answers = {index: _Answer(label) for index, label in labels.items()}
        if self._console.is_terminal:
            self._live.start()

    def add(self, index: int, text: str) -> None:
        """Append a piece of text to an answer."""
        self._answers[index].text += to_safe_text(text)  # an answer's escape sequences must not reach the terminal

    def finish(self, index: int, choice: JsonObject) -> None:
        """End an answer whose text has been added."""
        self._answers[index].choice = choice

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Print the whole comparison, or what arrived before an interruption."""
        self._live.stop()  # transient: it erases itself, and what follows stays on the screen
        if self._answers and self._console.is_terminal:
            self._console.print(self._render_final())
        elif self._answers:
            self._console.print(self._render_plain(), soft_wrap=True)

    def _render_live(self) -> RenderableType:
        if not self._answers:
            return ""
        # A frame takes two lines of border and one of figures; the last line of the screen stays free, or it would scroll.
        lines = (self._console.height - 1) // -(-len(self._answers) // self._columns) - 3
        if lines < MIN_ANSWER_LINES:
            return self._render_lines()
        return self._render_grid([self._wrap_tail(answer.text, lines) for answer in self._answers.values()])

    def _render_lines(self) -> RenderableType:
        width = max(self._console.width // 2 - 2, 1)
        lines = Table.grid(padding=(0, 2, 0, 0))
        for answer in self._answers.values():
            label = Text(answer.label, style=BORDER_STYLES[answer.failed])
            label.truncate(width, overflow="ellipsis")
            state = self._render_figures(answer) if answer.choice else Text(answer.text[-width:].replace("\n", " ") or "…")
            state.no_wrap, state.overflow = True, "ellipsis"
            lines.add_row(label, state)
        return lines

    def _render_final(self) -> RenderableType:
        return self._render_grid([self._wrap(self._render_text(answer)) for answer in self._answers.values()])

    def _render_plain(self) -> RenderableType:
        parts: list[RenderableType] = []
        for answer in self._answers.values():
            text = [self._render_text(answer)] if answer.text else []
            parts += [Text(f"== {answer.label}"), *text, Text(f"-- {self._render_figures(answer).plain}"), Text()]
        return Group(*parts[:-1])

    def _render_grid(self, texts: Sequence[list[Text]]) -> RenderableType:
        """Render each answer in a frame with its figures; the frames of a row are equally high."""
        figures = [self._wrap(self._render_figures(answer)) for answer in self._answers.values()]
        framed = list(zip(self._answers.values(), texts, figures, strict=True))
        grid = Table.grid()
        for start in range(0, len(framed), self._columns):
            row = framed[start : start + self._columns]
            height = max(len(lines) + len(below) for _, lines, below in row)
            grid.add_row(*(self._render_frame(answer, lines, below, height) for answer, lines, below in row))
        return grid

    def _render_frame(self, answer: _Answer, lines: list[Text], figures: list[Text], height: int) -> Panel:
        gap = [Text()] * (height - len(lines) - len(figures))
        text = Text("\n").join([*lines, *gap, *figures])
        style = BORDER_STYLES[answer.failed]
        return Panel(text, width=self._text_width + 4, title=Text(answer.label), title_align="left", border_style=style)

    def _render_figures(self, answer: _Answer) -> Text:
        if answer.choice:
            return Text(format_figures(answer.choice), style="red" if answer.failed else "dim")
        seconds = time.monotonic() - self._began
        return Text(f"… {seconds:.1f} s" if self._live.is_started else f"broken off after {seconds:.1f} s", style="dim")

    def _render_text(self, answer: _Answer) -> Text:
        first = next(iter(self._answers.values()))
        # A failed answer is incomplete: comparing it would mark all that is missing as removed.
        if self._diff and answer is not first and answer.failed is False and first.failed is False:
            return render_diff(first.text, answer.text, marks=not self._console.is_terminal)
        return Text(answer.text)

    @property
    def _columns(self) -> int:
        """Answers in a row: as many as fit, with the rows filled evenly."""
        fitting = max(self._console.width // MIN_ANSWER_COLUMNS, 1)
        rows = -(-len(self._answers) // fitting)
        return -(-len(self._answers) // rows)

    @property
    def _text_width(self) -> int:
        """Width of the text inside a frame."""
        return max(self._console.width // self._columns - 4, 1)  # less border and padding

    def _wrap(self, text: Text) -> list[Text]:
        return list(text.wrap(self._console, self._text_width)) if text else []

    def _wrap_tail(self, text: str, height: int) -> list[Text]:
        """Return the last lines of a growing text."""
        # Wrapping starts at a point that moves in steps: else every new character would shift all line breaks.
        start = max(len(text) - 4 * self._text_width * height, 0) // WRAP_STEP_CHARS * WRAP_STEP_CHARS
        return self._wrap(Text(text[start:]))[-height:]


def build_labels(places: Iterable[tuple[int, int, int, str]]) -> dict[int, str]:
    """Return the heading of each answer by index, from its index, entry, sample and label; several samples are numbered."""
    places = list(places)
    sampled = {entry for _, entry, sample, _ in places if sample}
    return {index: f"{label} #{sample + 1}" if entry in sampled else label for index, entry, sample, label in places}


def format_figures(choice: JsonObject) -> str:
    """Return the line below an answer: tokens, time and cost, or the reason of its failure."""
    if choice["error"]:
        return _format_error(choice)
    timing, tokens, cost = choice["timing"], choice["usage"]["completion_tokens"], choice["cost_usd"]
    parts = [
        "tokens unknown" if tokens is None else f"{tokens} token{'' if tokens == 1 else 's'}",
        f"{timing['total_ms'] / 1e3:.2f} s",
        "cost unknown" if cost is None else format_usd(cost),
        f"first after {timing['ttft_ms']} ms" if timing["ttft_ms"] is not None else "",
        f"{timing['tokens_per_second']:.0f} tokens/s" if timing["tokens_per_second"] else "",
        f"queued {timing['queued_ms']} ms" if timing["queued_ms"] else "",
        f"{timing['attempts']} attempts" if timing["attempts"] > 1 else "",
        "" if choice["finish_reason"] == "stop" else f"ended: {choice['finish_reason'] or choice['native_finish_reason']}",
        f"refused: {choice['refusal']}" if choice.get("refusal") else "",
        f"also: {', '.join(choice['other_content'])}" if choice.get("other_content") else "",
        f"ignored: {', '.join(choice['ignored_parameters'])}" if choice["ignored_parameters"] else "",
        f"adjusted: {', '.join(choice['adjusted_parameters'])}" if choice["adjusted_parameters"] else "",
    ]
    return " · ".join(part for part in parts if part)


def _format_error(choice: JsonObject) -> str:
    error = choice["error"]
    attempts = choice["timing"]["attempts"] if "timing" in choice else 0
    after = f" after {attempts} attempts" if attempts > 1 else ""
    status = f" {error['upstream_status']}" if "upstream_status" in error else ""
    return to_safe_text(f"{error['kind'].replace('_', ' ')}{status}{after}: {error['message']}")


def render_diff(one: str, other: str, *, marks: bool = False) -> Text:
    """Return `other` with its differences from `one`, word by word: coloured or, with `marks`, as [-removed-] and {+added+}."""
    before, after = (re.findall(r"\S+\s*|\s+", text) for text in (one, other))
    # Without autojunk=False, difflib ignores frequent words of long texts and marks them as changed.
    words = difflib.SequenceMatcher(None, [word.strip() for word in before], [word.strip() for word in after], autojunk=False)
    shown = Text()
    for operation, a, b, c, d in words.get_opcodes():
        removed, added = "".join(before[a:b]), "".join(after[c:d])
        if operation == "equal":
            shown.append(added)
            continue
        if shown and not shown.plain[-1].isspace():  # the last word in common ends `other`, so no space follows it
            shown.append(" ")
        if removed:
            shown.append(f"[-{removed.rstrip()}-] " if marks else removed, style="red strike")
        if added:
            shown.append(f"{{+{added.rstrip()}+}}{added[len(added.rstrip()) :]}" if marks else added, style="green")
    return shown
