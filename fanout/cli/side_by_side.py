"""Answers side by side: live on a terminal, plain text in a pipe."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fanout.cli.answer_view import AnswerView, ShownAnswer, format_figures, format_totals
from fanout.core.shown_text import to_safe_text

MIN_ANSWER_COLUMNS = 36
"""Width below which answers are shown one below the other."""
MIN_ANSWER_LINES = 3
"""Height below which a live answer gets one line without a frame."""
WRAP_STEP_CHARS = 1024
BORDER_STYLES = {True: "red", False: "green", None: "cyan"}


class SideBySide(AnswerView):
    """A view of one comparison: `begin`, then `add` and `finish` as pieces arrive; the whole is printed on exit."""

    def __init__(
        self,
        console: Console,
        notes: Console | None = None,
        *,
        diff: bool = False,
        markdown: bool = False,
        framed: bool = True,
        is_live: bool = True,
    ) -> None:
        """Take the console, and one for notes.

        Args:
            console: of the answers; on a terminal they move while they are written.
            notes: of the figures, where a single answer is piped on; by default the same.
            diff: show how the other answers differ from the first.
            markdown: render the ended answers' Markdown on a terminal.
            framed: show the answers side by side in frames; else one below the other, to be copied.
            is_live: show the answers while they are written.
        """
        super().__init__()
        self._console, self._notes, self._diff = console, notes or console, diff
        self._markdown, self._framed, self._is_live = markdown, framed, is_live
        self._began = 0.0
        self._live = Live(console=console, refresh_per_second=12, transient=True, get_renderable=self._render_live)

    @property
    def _is_streaming(self) -> bool:
        """True where a single answer is passed on piece by piece, with nothing around it."""
        return not self._console.is_terminal and len(self.answers) == 1

    def begin(self, labels: Mapping[int, str]) -> None:
        """Show the labels of the answers to come, by index."""
        super().begin(labels)
        self._began = time.monotonic()
        if self._console.is_terminal and self._is_live:
            self._live.start()

    def add(self, index: int, text: str) -> None:
        """Append a piece of text to an answer, and pass it on where it is the only one of a pipe."""
        super().add(index, text)
        if self._is_streaming:
            self._console.file.write(to_safe_text(text))
            self._console.file.flush()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Print the whole comparison, or what arrived before an interruption."""
        self._live.stop()  # transient: it erases itself, and what follows stays on the screen
        if self._is_streaming:
            self._end_stream(*self.answers.values())
        elif self.answers and self._console.is_terminal and self._framed:
            self._console.print(self._render_final())
            if totals := format_totals([*self.answers.values()]):
                self._console.print(Text(totals, style="dim"))
        elif self.answers:
            self._console.print(self._render_plain(), soft_wrap=True)

    def _end_stream(self, answer: ShownAnswer) -> None:
        if answer.text and not answer.text.endswith("\n"):
            self._console.file.write("\n")
            self._console.file.flush()  # before the figures, where both outputs lead to one file
        self._notes.print(self._render_figures(answer), soft_wrap=True)

    def _render_live(self) -> RenderableType:
        if not self.answers:
            return ""
        # A frame takes two lines of border and one of figures; the last line of the screen stays free, or it would scroll.
        lines = (self._console.height - 1) // -(-len(self.answers) // self._columns) - 3
        if lines < MIN_ANSWER_LINES:
            return self._render_lines()
        return self._render_grid([self._wrap_tail(answer.text, lines) for answer in self.answers.values()])

    def _render_lines(self) -> RenderableType:
        width = max(self._console.width // 2 - 2, 1)
        lines = Table.grid(padding=(0, 2, 0, 0))
        for answer in self.answers.values():
            label = Text(answer.label, style=BORDER_STYLES[answer.failed])
            label.truncate(width, overflow="ellipsis")
            state = self._render_figures(answer) if answer.choice else Text(answer.text[-width:].replace("\n", " ") or "…")
            state.no_wrap, state.overflow = True, "ellipsis"
            lines.add_row(label, state)
        return lines

    def _render_final(self) -> RenderableType:
        return self._render_grid([self._render_lines_of(answer) for answer in self.answers.values()])

    def _render_lines_of(self, answer: ShownAnswer) -> list[Text]:
        if not self._markdown or self._diff:
            return self._wrap(self._render_text(answer))
        from rich.markdown import Markdown  # at the end of an answer, on a terminal: its parsers take 30 ms to import

        options = self._console.options.update(width=self._text_width, height=None)
        lines = self._console.render_lines(Markdown(answer.text, hyperlinks=False), options, pad=False)
        return [Text.assemble(*((piece.text, piece.style or "") for piece in line)) for line in lines]

    def _render_plain(self) -> RenderableType:
        parts: list[RenderableType] = []
        for answer in self.answers.values():
            text = [self._render_text(answer)] if answer.text else []
            parts += [Text(f"== {answer.label}"), *text, Text(f"-- {self._render_figures(answer).plain}"), Text()]
        if totals := format_totals([*self.answers.values()]):
            parts += [Text(f"-- {totals}"), Text()]
        return Group(*parts[:-1])

    def _render_grid(self, texts: Sequence[list[Text]]) -> RenderableType:
        """Render each answer in a frame with its figures; the frames of a row are equally high."""
        figures = [self._wrap(self._render_figures(answer)) for answer in self.answers.values()]
        framed = list(zip(self.answers.values(), texts, figures, strict=True))
        grid = Table.grid()
        for start in range(0, len(framed), self._columns):
            row = framed[start : start + self._columns]
            height = max(len(lines) + len(below) for _, lines, below in row)
            grid.add_row(*(self._render_frame(answer, lines, below, height) for answer, lines, below in row))
        return grid

    def _render_frame(self, answer: ShownAnswer, lines: list[Text], figures: list[Text], height: int) -> Panel:
        gap = [Text()] * (height - len(lines) - len(figures))
        text = Text("\n").join([*lines, *gap, *figures])
        style = BORDER_STYLES[answer.failed]
        return Panel(text, width=self._text_width + 4, title=Text(answer.label), title_align="left", border_style=style)

    def _render_figures(self, answer: ShownAnswer) -> Text:
        if answer.choice:
            return Text(format_figures(answer.choice), style="red" if answer.failed else "dim")
        seconds = time.monotonic() - self._began
        return Text(f"… {seconds:.1f} s" if self._live.is_started else f"broken off after {seconds:.1f} s", style="dim")

    def _render_text(self, answer: ShownAnswer) -> Text:
        first = next(iter(self.answers.values()))
        # A failed answer is incomplete: comparing it would mark all that is missing as removed.
        if self._diff and answer is not first and answer.failed is False and first.failed is False:
            return render_diff(first.text, answer.text, marks=not self._console.is_terminal)
        return Text(answer.text)

    @property
    def _columns(self) -> int:
        """Answers in a row: as many as fit, with the rows filled evenly."""
        fitting = max(self._console.width // MIN_ANSWER_COLUMNS, 1)
        rows = -(-len(self.answers) // fitting)
        return -(-len(self.answers) // rows)

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
