"""What a person sees: answers side by side as they come, tables, the server's greeting; plain text where nobody watches."""

from __future__ import annotations

import difflib
import json
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

import fanout
from fanout.config.catalogue import Catalogue
from fanout.config.settings import Settings

NARROWEST = 36
"""Columns that an answer needs to stand beside another; with less they stand one below the other."""
LOWEST = 3
"""Lines of text that an answer needs while it moves; with less it has one line, without a frame."""
BORDERS = {True: "red", False: "green", None: "cyan"}
STATES = {"ready": "green", "answers": "green", "failed": "red", "shut": "dim"}
# An answer must not steer the terminal: its control characters are shown as their pictures. Half a character cannot be written.
CONTROLS = str.maketrans(
    {chr(code): chr(0x2400 + code) for code in range(32)}
    | dict.fromkeys(map(chr, (*range(127, 160), *range(0xD800, 0xE000))), "\ufffd")
    | {"\t": "\t", "\n": "\n", "\r": ""}
)


@dataclass(slots=True)
class _Answer:
    label: str
    text: str = ""
    end: Mapping[str, Any] = field(default_factory=dict)
    """The choice as `POST /v1/completion` gives it, once it has ended."""

    @property
    def failed(self) -> bool | None:
        """`None` while nobody knows."""
        return self.end["error"] is not None if self.end else None


class SideBySide:
    """Shows a comparison while its `with` lasts, and leaves it whole: `begin`, then `add` and `finish` as pieces come."""

    def __init__(self, console: Console, *, diff: bool = False) -> None:
        self._console, self._diff = console, diff
        self._answers: dict[int, _Answer] = {}
        self._began = 0.0
        self._live = Live(console=console, refresh_per_second=12, transient=True, get_renderable=self._moving)

    @property
    def failed(self) -> int:
        return sum(answer.failed is not False for answer in self._answers.values())

    def __enter__(self) -> Self:
        return self

    def begin(self, labels: Mapping[int, str]) -> None:
        """The answers to come, by their index."""
        self._began = time.monotonic()
        self._answers = {index: _Answer(label) for index, label in labels.items()}
        if self._console.is_terminal:
            self._live.start()

    def add(self, index: int, text: str) -> None:
        self._answers[index].text += text.translate(CONTROLS)

    def finish(self, index: int, choice: Mapping[str, Any]) -> None:
        """The end of a choice whose text has been added."""
        self._answers[index].end = choice

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """What was interrupted is shown as far as it came."""
        self._live.stop()
        if self._answers and self._console.is_terminal:
            self._console.print(self._still())
        elif self._answers:
            self._console.print(self._plain(), soft_wrap=True)

    def _moving(self) -> RenderableType:
        """The last lines of each answer, so that all of them fit."""
        if not self._answers:
            return ""
        lines = (self._console.height - 1) // -(-len(self._answers) // self._across()) - 3
        if lines < LOWEST:
            return self._crowd()
        return self._grid([_tail(self._console, answer.text, self._width(), lines) for answer in self._answers.values()])

    def _crowd(self) -> RenderableType:
        """A line for each answer."""
        across = max(self._console.width // 2 - 2, 1)
        lines = Table.grid(padding=(0, 2, 0, 0))
        for answer in self._answers.values():
            label = Text(answer.label, style=BORDERS[answer.failed])
            label.truncate(across, overflow="ellipsis")
            now = self._below(answer) if answer.end else Text(answer.text[-across:].replace("\n", " ") or "…")
            now.no_wrap, now.overflow = True, "ellipsis"
            lines.add_row(label, now)
        return lines

    def _still(self) -> RenderableType:
        return self._grid([_wrapped(self._console, self._whole(answer), self._width()) for answer in self._answers.values()])

    def _plain(self) -> RenderableType:
        parts: list[RenderableType] = []
        for answer in self._answers.values():
            text = [self._whole(answer)] if answer.text else []
            parts += [Text(f"== {answer.label}"), *text, Text(f"-- {self._below(answer).plain}"), Text()]
        return Group(*parts[:-1])

    def _across(self) -> int:
        """Answers in a row: as many as there is room for, the last row as full as the others."""
        room = max(self._console.width // NARROWEST, 1)
        rows = -(-len(self._answers) // room)
        return -(-len(self._answers) // rows)

    def _width(self) -> int:
        """Of the text inside a frame."""
        return max(self._console.width // self._across() - 4, 1)

    def _grid(self, texts: Sequence[list[Text]]) -> RenderableType:
        """Each answer's lines in a frame, with its figures below; the frames of a row are equally high."""
        across, width = self._across(), self._width()
        framed = [
            (answer, lines, _wrapped(self._console, self._below(answer), width))
            for answer, lines in zip(self._answers.values(), texts, strict=True)
        ]
        grid = Table.grid()
        for start in range(0, len(framed), across):
            row = framed[start : start + across]
            height = max(len(lines) + len(below) for _, lines, below in row)
            grid.add_row(*(_panel(answer, lines, below, height, width + 4) for answer, lines, below in row))
        return grid

    def _below(self, answer: _Answer) -> Text:
        if answer.end:
            return Text(figures(answer.end), style="red" if answer.failed else "dim")
        seconds = time.monotonic() - self._began
        return Text(f"… {seconds:.1f} s" if self._live.is_started else f"broken off after {seconds:.1f} s", style="dim")

    def _whole(self, answer: _Answer) -> Text:
        first = next(iter(self._answers.values()))
        if self._diff and answer is not first and answer.failed is False and first.failed is False:
            return diff(first.text, answer.text, marks=not self._console.is_terminal)
        return Text(answer.text)


def labels(places: Iterable[tuple[int, int, int, str]]) -> dict[int, str]:
    """What stands above each answer, by its index. A place is index, entry, sample and label; samples are numbered."""
    placed = list(places)
    sampled = {entry for _, entry, sample, _ in placed if sample}
    return {index: f"{label} #{sample + 1}" if entry in sampled else label for index, entry, sample, label in placed}


def figures(choice: Mapping[str, Any]) -> str:
    """What stands below an answer: tokens, time and cost, or why there is none."""
    if error := choice["error"]:
        attempts = choice["timing"]["attempts"] if "timing" in choice else 0
        tried = f" after {attempts} attempts" if attempts > 1 else ""
        status = f" {error['upstream_status']}" if "upstream_status" in error else ""
        return f"{error['kind'].replace('_', ' ')}{status}{tried}: {error['message']}".translate(CONTROLS)
    timing, tokens, cost = choice["timing"], choice["usage"]["completion_tokens"], choice["cost_usd"]
    parts = [
        "tokens unknown" if tokens is None else f"{tokens} token{'' if tokens == 1 else 's'}",
        f"{timing['total_ms'] / 1e3:.2f} s",
        "cost unknown" if cost is None else money(cost),
        f"first after {timing['ttft_ms']} ms" if timing["ttft_ms"] is not None else "",
        f"{timing['tokens_per_second']:.0f} tokens/s" if timing["tokens_per_second"] else "",
        f"queued {timing['queued_ms']} ms" if timing["queued_ms"] else "",
        f"{timing['attempts']} attempts" if timing["attempts"] > 1 else "",
        "" if choice["finish_reason"] == "stop" else f"ended: {choice['finish_reason'] or choice['native_finish_reason']}",
        f"ignored: {', '.join(choice['ignored_parameters'])}" if choice["ignored_parameters"] else "",
        f"adjusted: {', '.join(choice['adjusted_parameters'])}" if choice["adjusted_parameters"] else "",
    ]
    return " · ".join(part for part in parts if part)


def line(text: str) -> str:
    """What others wrote, as one line that cannot steer the terminal."""
    return " ".join(text.translate(CONTROLS).split())


def money(usd: float) -> str:
    """US dollars, to a millionth."""
    return f"${usd:.6f}".rstrip("0").rstrip(".")


def diff(one: str, other: str, *, marks: bool = False) -> Text:
    """What `other` has instead of `one`, word by word: taken away in red, added in green, or [-so-] {+so+} with `marks`."""
    before, after = (re.findall(r"\S+\s*|\s+", text) for text in (one, other))
    words = difflib.SequenceMatcher(None, [word.strip() for word in before], [word.strip() for word in after], autojunk=False)
    shown = Text()
    for what, a, b, c, d in words.get_opcodes():
        gone, came = "".join(before[a:b]), "".join(after[c:d])
        if what == "equal":
            shown.append(came)
            continue
        if shown and not shown.plain[-1].isspace():  # the last word that both have is the last of `other`
            shown.append(" ")
        if gone:
            shown.append(f"[-{gone.rstrip()}-] " if marks else gone, style="red strike")
        if came:
            shown.append(f"{{+{came.rstrip()}+}}{came[len(came.rstrip()) :]}" if marks else came, style="green")
    return shown


def greeting(address: str, settings: Settings, width: int | None) -> str:
    """What a person reads who has just started the server: what is missing, what is ready, what to try; the last matters most.

    Args:
        width: of the terminal; `None`: nothing is wrapped.
    """
    catalogue, today = Catalogue(settings), datetime.now(UTC).date()
    served: dict[str, list[str]] = {name: [] for name in settings.providers}
    for model in catalogue:
        if not catalogue.retired(model, today):
            served[model.provider].append(model.name)
    lacking = {name: " and ".join(provider.lacks()) for name, provider in settings.providers.items() if provider.lacks()}
    ready = [name for provider, names in served.items() if provider not in lacking for name in names]
    listed = [f"{lacks} for {_some(served[name])}" for name, lacks in lacking.items() if served[name]]
    others = [f"{lacks} for {name}/…" for name, lacks in lacking.items() if not served[name]]
    key = " -H 'Authorization: Bearer <key>'" if settings.environment.api_keys else ""
    body = {"model": ready[:3] or ["<provider>/<model>"], "prompt": "The return statement", "max_tokens": 30}
    paragraphs = [
        *(_paragraph("to set:", line, width) for line in listed),
        *([_paragraph("to set:", ", ".join(others), width)] if others else []),
        _paragraph("ready:", _some(ready, 12) or "no model", width),
        f"Fanout {fanout.__version__} listens on {address}; to try it:",
        f"curl {address}/v1/completion{key} -H 'Content-Type: application/json' -d '{json.dumps(body)}'",
    ]
    return "\n".join(paragraphs)


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _paragraph(title: str, text: str, width: int | None) -> str:
    return textwrap.fill(
        text,
        width or sys.maxsize,
        initial_indent=f"{title:8}",
        subsequent_indent=" " * 8,
        break_long_words=False,
        break_on_hyphens=False,
    )


def show_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A table without frills, never wrapped where a program reads it; the columns named in `right` are numbers."""
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    if console.is_terminal and sum(widths) + 2 * len(widths) > console.width:
        widths[-1] = 0  # the last column is the one that may be long: it wraps
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, justify="right" if column in right else "left", min_width=width or None, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STATES.get(re.split("[ ,:]", cell)[0], "")) for cell in row))
    if console.is_terminal:
        console.print(table)
        return
    for cells in (columns, *rows):
        padded = [
            " " * (width - cell_len(cell)) + cell if column in right else cell + " " * (width - cell_len(cell))
            for column, cell, width in zip(columns, cells, widths, strict=True)
        ]
        console.print(Text("  ".join(padded).rstrip()), soft_wrap=True)


def _panel(answer: _Answer, lines: list[Text], below: list[Text], height: int, width: int) -> Panel:
    gap = [Text()] * (height - len(lines) - len(below))
    text = Text("\n").join([*lines, *gap, *below])
    return Panel(text, width=width, title=Text(answer.label), title_align="left", border_style=BORDERS[answer.failed])


def _wrapped(console: Console, text: Text, width: int) -> list[Text]:
    return list(text.wrap(console, width)) if text else []


def _tail(console: Console, text: str, width: int, height: int) -> list[Text]:
    """The last lines. They are wrapped from a start that moves only every 1,024 characters, so that they stand still."""
    start = max(len(text) - 4 * width * height, 0) // 1024 * 1024
    return _wrapped(console, Text(text[start:]), width)[-height:]
