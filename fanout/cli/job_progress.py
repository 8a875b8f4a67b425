"""A running batch job: live on a terminal, a line now and then in a pipe."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fanout.cli.job_summary import (
    format_cost,
    format_failures,
    format_mean_time,
    format_pace,
    format_progress,
    format_rate,
    format_share,
    format_title,
)
from fanout.cli.tables import print_line
from fanout.core.shown_text import to_single_line

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.rendering.job import JobCountsJson, JobJson

LINE_INTERVAL_S = 5.0
"""Time between two lines in a pipe, unless a note is new."""
RATE_WINDOW_S = 20.0
"""Period over which the rate of each model is measured."""
SAMPLE_INTERVAL_S = 0.2
MAX_BAR_COLUMNS = 30
OTHER_LINES = 7
"""Lines of the view that are not rows of models."""


class JobProgress:
    """A view of a job while its `with` block lasts: `show` the job whenever it has changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._job: JobJson | None = None
        self._expected: Mapping[str, int] = {}
        self._notes: Sequence[str] = ()
        self._samples: deque[tuple[float, Mapping[str, int]]] = deque()
        """Times, and the calls that had ended by then, by model."""
        self._printed_at = time.monotonic()
        self._printed_notes: Sequence[str] = ()
        self._live = Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._render)

    def expect(self, labels: Iterable[str], calls: int) -> None:
        """Show rows for these models from the beginning; a label listed twice has twice as many calls."""
        self._expected = {label: number * calls for label, number in Counter(labels).items()}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def show(self, job: JobJson, notes: Sequence[str] = ()) -> None:
        """Show the job's present state, with notes below it."""
        now = time.monotonic()
        self._sample(job, now)
        self._job, self._notes = job, notes
        if self._console.is_terminal:
            return
        # A new note, such as a database that cannot be written, does not wait for the interval.
        if now - self._printed_at >= LINE_INTERVAL_S or set(notes) - set(self._printed_notes):
            self._printed_at, self._printed_notes = now, notes
            line = " · ".join([f"{job['id']}: {format_progress(job)}", *notes])
            print_line(self._console, to_single_line(line))

    def _sample(self, job: JobJson, now: float) -> None:
        # Not every snapshot: a fast job would fill the window with thousands of samples.
        if not self._samples or now - self._samples[-1][0] >= SAMPLE_INTERVAL_S:
            self._samples.append((now, {counts["model"]: counts["ended"] for counts in job["counts"]}))
        while now - self._samples[0][0] > RATE_WINDOW_S:
            self._samples.popleft()

    def _render(self) -> RenderableType:
        if self._job is None:
            return ""
        bar = Table.grid(padding=(0, 1, 0, 0))
        width = min(MAX_BAR_COLUMNS, self._console.width // 2)
        ended = self._job["progress"]["ended"]
        bar.add_row(ProgressBar(total=self._job["calls"] or 1, completed=ended, width=width), Text(format_share(self._job)))
        pace = [Text(text)] if (text := format_pace(self._job)) else []
        notes = [Text(to_single_line(note), style="yellow") for note in self._notes]
        return Group(Text(format_title(self._job), style="bold"), bar, *pace, *self._render_models(self._job), *notes)

    def _render_models(self, job: JobJson) -> list[RenderableType]:
        counts = {counts["model"]: counts for counts in job["counts"]}
        labels = [*self._expected, *(label for label in counts if label not in self._expected)]
        if not labels:
            return []
        # A live view higher than the screen cannot erase itself and leaves lines behind.
        max_rows = max(self._console.height - OTHER_LINES - len(self._notes), 1)
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        table.add_column("model", overflow="ellipsis", no_wrap=True)
        for column in ("done", "rate", "mean", "cost"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("failed", overflow="ellipsis", no_wrap=True)
        for label in labels[:max_rows]:
            table.add_row(*self._render_cells(label, counts.get(label)))
        return [table, *([Text(f"and {len(labels) - max_rows} more")] if len(labels) > max_rows else [])]

    def _render_cells(self, label: str, counts: JobCountsJson | None) -> list[RenderableType]:
        ended, expected = counts["ended"] if counts else 0, self._expected.get(label)
        rate = self._measure_rate(label)
        return [
            Text(to_single_line(label)),
            f"{ended:,}" + (f" of {expected:,}" if expected else ""),
            "" if rate is None else format_rate(rate),
            format_mean_time(counts) if counts else "",
            format_cost(counts) if counts else "",
            Text(format_failures(counts) if counts else "", style="red"),
        ]

    def _measure_rate(self, label: str) -> float | None:
        (began, before), (at, now) = self._samples[0], self._samples[-1]
        # A rate over a shorter time would jump about.
        return (now.get(label, 0) - before.get(label, 0)) / (at - began) if at - began > 0.5 else None
