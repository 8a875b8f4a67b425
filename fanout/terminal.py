"""Answers side by side on a terminal, as they come; plain text where nobody watches."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

NARROWEST = 36
"""Columns that an answer needs to stand beside another; with less they stand one below the other."""
STYLES = {True: "red", False: "green", None: "cyan"}


@dataclass(slots=True)
class _Answer:
    label: str
    text: str = ""
    end: Mapping[str, Any] | None = None
    """The choice as `POST /v1/completion` gives it, once it has ended."""

    @property
    def failed(self) -> bool | None:
        return None if self.end is None else self.end["error"] is not None


class SideBySide:
    """Shows a comparison. `add` and `finish` as pieces come, `close` at the end; `failed` then counts the failures."""

    def __init__(self, console: Console, labels: Mapping[int, str], *, diff: bool = False) -> None:
        self._console, self._diff = console, diff
        self._answers = {index: _Answer(label) for index, label in labels.items()}
        self._live = Live(console=console, refresh_per_second=12, transient=True, get_renderable=self._moving)
        if console.is_terminal:
            self._live.start()

    @property
    def failed(self) -> int:
        return sum(answer.failed is not False for answer in self._answers.values())

    def add(self, index: int, text: str) -> None:
        self._answers[index].text += text

    def finish(self, index: int, choice: Mapping[str, Any]) -> None:
        """The choice's end; its own text stands for what came before, where it has any."""
        answer = self._answers[index]
        answer.text = choice["text"] or answer.text
        answer.end = choice

    def close(self, *, show: bool = True) -> None:
        """Takes the moving picture away and leaves the answers whole."""
        if self._console.is_terminal:
            self._live.stop()
        if show:
            self._console.print(self._still() if self._console.is_terminal else self._plain())

    def _moving(self) -> RenderableType:
        """Only the last lines of each answer, so that all of them fit."""
        across = self._across()
        rows = -(-len(self._answers) // across)
        height = max((self._console.height - 1) // rows - 2, 3)
        width = self._console.width // across - 4
        panels = [_panel(answer, _tail(answer.text, width, height)) for answer in self._answers.values()]
        return _grid(panels, across)

    def _still(self) -> RenderableType:
        return _grid([_panel(answer, self._shown(answer)) for answer in self._answers.values()], self._across())

    def _plain(self) -> RenderableType:
        parts: list[RenderableType] = []
        for answer in self._answers.values():
            parts += [Text(f"== {answer.label}"), self._shown(answer), Text(f"-- {figures(answer.end or {})}"), Text("")]
        return Group(*parts[:-1])

    def _across(self) -> int:
        return max(1, min(len(self._answers), self._console.width // NARROWEST))

    def _shown(self, answer: _Answer) -> Text:
        first = next(iter(self._answers.values()))
        if self._diff and answer is not first and not answer.failed:
            return diff(first.text, answer.text, marks=not self._console.is_terminal)
        return Text(answer.text)


def figures(choice: Mapping[str, Any]) -> str:
    """What stands below an answer: tokens, time and cost, or why there is none."""
    if not choice:
        return "…"
    timing = choice["timing"]
    if choice["error"]:
        error = choice["error"]
        tried = f" after {timing['attempts']} attempts" if timing["attempts"] > 1 else ""
        return f"{error['code']}{tried}: {error['message']}"
    usage = choice["usage"]
    parts = [
        _counted(usage["completion_tokens"], "tokens"),
        f"{timing['total_ms'] / 1e3:.2f} s",
        f"first after {timing['ttft_ms']} ms" if timing["ttft_ms"] is not None else "",
        f"{timing['tokens_per_second']:.0f} tokens/s" if timing["tokens_per_second"] else "",
        "cost unknown" if choice["cost_usd"] is None else f"${choice['cost_usd']:.6f}".rstrip("0").rstrip("."),
        "" if choice["finish_reason"] == "stop" else str(choice["finish_reason"]),
        f"ignored: {', '.join(choice['ignored_parameters'])}" if choice["ignored_parameters"] else "",
        f"adjusted: {', '.join(choice['adjusted_parameters'])}" if choice["adjusted_parameters"] else "",
    ]
    return " · ".join(part for part in parts if part)


def diff(one: str, other: str, *, marks: bool = False) -> Text:
    """What `other` has instead of `one`, word by word: taken away in red, added in green, or [-so-] {+so+} with `marks`."""
    before, after = (re.findall(r"\S+\s*|\s+", text) for text in (one, other))
    shown = Text()
    for what, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        gone, came = "".join(before[a:b]), "".join(after[c:d])
        if what == "equal":
            shown.append(came)
            continue
        if gone:
            shown.append(f"[-{gone.rstrip()}-] " if marks else gone, style="red strike")
        if came:
            shown.append(f"{{+{came.rstrip()}+}} " if marks else came, style="green")
    return shown


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> Table:
    """A table without frills; the columns named in `right` are numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(Text.from_markup, row))
    return made


def _panel(answer: _Answer, text: Text) -> Panel:
    below = figures(answer.end or {})
    if answer.failed:
        text = Text.assemble(text, "\n" if text else "", (below, "red"))
        below = "failed"
    return Panel(
        text,
        title=Text(answer.label),
        subtitle=Text(below),
        title_align="left",
        subtitle_align="left",
        border_style=STYLES[answer.failed],
    )


def _grid(panels: Sequence[Panel], across: int) -> Table:
    grid = Table.grid(expand=True)
    for _ in range(across):
        grid.add_column(ratio=1)
    for start in range(0, len(panels), across):
        grid.add_row(*panels[start : start + across])
    return grid


def _tail(text: str, width: int, height: int) -> Text:
    lines = [line[i : i + width] for line in text[-width * height :].split("\n") for i in range(0, max(len(line), 1), width)]
    return Text("\n".join(lines[-height:]))


def _counted(count: int | None, noun: str) -> str:
    return f"{noun} unknown" if count is None else f"{count} {noun}"
