"""A batch job as a person sees it: how far it is, at what pace and cost, and what came of it; lines where nobody watches.

A job is a mapping as `GET /v1/jobs/{job_id}` answers it.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fanout.cli.side_by_side import line, money, show_table

LINES_S = 5.0
"""How often a line is written where nobody watches."""
RATE_S = 20.0
"""Over how long a model's pace is taken."""
BAR = 30
"""Columns of the bar."""
Job = Mapping[str, Any]


class Board:
    """Shows a job while its `with` lasts, and takes itself away at the end: `show` it as it goes on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._job: Job | None = None
        self._expected: Mapping[str, int] = {}
        self._notes: Sequence[str] = ()
        self._seen: deque[tuple[float, Mapping[str, int]]] = deque()
        self._said_at = time.monotonic()
        self._said: Sequence[str] = ()
        self._live = Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._moving)

    def expect(self, labels: Iterable[str], calls: int) -> None:
        """Which models will be asked, and how often each time one is named: they stand there from the beginning."""
        self._expected = {label: number * calls for label, number in Counter(labels).items()}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def show(self, job: Job, notes: Sequence[str] = ()) -> None:
        """The job as it is now, and what else is to be known."""
        now = time.monotonic()
        if not self._seen or now - self._seen[-1][0] >= 0.2:
            self._seen.append((now, {counted["model"]: counted["ended"] for counted in job["counts"]}))
        while now - self._seen[0][0] > RATE_S:
            self._seen.popleft()
        self._job, self._notes = job, notes
        if not self._console.is_terminal and (now - self._said_at >= LINES_S or set(notes) - set(self._said)):
            self._said_at, self._said = now, notes
            said = " · ".join([f"{job['id']}: {facts(job)}", *notes])
            self._console.print(Text(line(said)), soft_wrap=True)

    def _moving(self) -> RenderableType:
        if self._job is None:
            return ""
        progress = self._job["progress"]
        bar = Table.grid(padding=(0, 1, 0, 0))
        width = min(BAR, self._console.width // 2)
        bar.add_row(
            ProgressBar(total=self._job["calls"] or 1, completed=progress["ended"], width=width), Text(share(self._job))
        )
        more = [Text(said)] if (said := course(self._job)) else []
        notes = [Text(line(note), style="yellow") for note in self._notes]
        return Group(Text(title(self._job), style="bold"), bar, *more, *self._models(), *notes)

    def _models(self) -> list[RenderableType]:
        counts = {counted["model"]: counted for counted in self._job["counts"]} if self._job else {}
        labels = [*self._expected, *(label for label in counts if label not in self._expected)]
        most = max(self._console.height - 7 - len(self._notes), 1)
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        table.add_column("model", overflow="ellipsis", no_wrap=True)
        for column in ("done", "rate", "mean", "cost"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("failed", overflow="ellipsis", no_wrap=True)
        for label in labels[:most]:
            counted = counts.get(label)
            done, expected = counted["ended"] if counted else 0, self._expected.get(label)
            rate = self._rate(label)
            table.add_row(
                Text(line(label)),
                f"{done:,}" + (f" of {expected:,}" if expected else ""),
                "" if rate is None else pace(rate),
                mean(counted) if counted else "",
                cost(counted) if counted else "",
                Text(failures(counted) if counted else "", style="red"),
            )
        if not labels:
            return []
        return [table, *([Text(f"and {len(labels) - most} more")] if len(labels) > most else [])]

    def _rate(self, label: str) -> float | None:
        """Ends a second, of late; `None` where it was not watched for long enough."""
        (began, before), (at, now) = self._seen[0], self._seen[-1]
        return (now.get(label, 0) - before.get(label, 0)) / (at - began) if at - began > 0.5 else None


# Words


def title(job: Job) -> str:
    """Which job it is, and how large."""
    named = job["name"] or job["input"].get("name")
    asked = f"{job['items']:,} row{'' if job['items'] == 1 else 's'}, {job['calls']:,} call{'' if job['calls'] == 1 else 's'}"
    return line(" · ".join([job["id"], *([str(named)] if named else []), asked, job["state"]]))


def facts(job: Job) -> str:
    """How far it is, how fast and how dear, in one line."""
    return " · ".join(part for part in (share(job), course(job)) if part)


def share(job: Job) -> str:
    """How much of it has ended; 100 % is all."""
    ended, calls = job["progress"]["ended"], job["calls"]
    return f"{ended:,} of {calls:,}" + (f" · {ended * 100 // calls} %" if calls else "")


def course(job: Job) -> str:
    """What has failed, how fast it goes, what it has cost, how long it will last."""
    progress = job["progress"]
    failed: Counter[str] = Counter()
    for counted in job["counts"]:
        failed.update(counted["failures"])
    spent = cost(progress) if progress["ended"] else ""
    left = progress["left_s"] if progress["left"] and job["state"] in ("running", "queued") else None
    parts = [
        f"{progress['failed']:,} failed ({kinds(failed)})" if progress["failed"] else "",
        pace(progress["calls_per_second"]) if progress["calls_per_second"] and progress["left"] else "",
        spent,
        f"{duration(left)} left" if left is not None else "",
    ]
    return " · ".join(part for part in parts if part)


def kinds(failed: Mapping[str, int]) -> str:
    """Failures by kind, most of them first; the words are those that `--kind` takes."""
    return ", ".join(f"{kind} {number:,}" for kind, number in sorted(failed.items(), key=lambda item: -item[1]))


def failures(counted: Mapping[str, Any]) -> str:
    failed = counted["failures"]
    return f"{sum(failed.values()):,} ({kinds(failed)})" if failed else ""


def pace(rate: float) -> str:
    return f"{rate:.1f}/s" if rate >= 0.1 or not rate else f"{rate * 60:.1f}/min"


def mean(counted: Mapping[str, Any]) -> str:
    return "" if counted["mean_ms"] is None else f"{counted['mean_ms'] / 1e3:.2f} s"


def cost(counted: Mapping[str, Any]) -> str:
    """What is known of the cost, and of how many it is not."""
    usd, unknown = counted["cost_usd"], counted["cost_unknown"]
    if usd is None:
        return "cost unknown" if unknown else ""
    return money(usd) + (f" + {unknown:,} unknown" if unknown else "")


def tokens(counted: Mapping[str, Any], name: str) -> str:
    """A sum of tokens; `≥` where some answers did not tell theirs."""
    found = counted[name]
    if found is None:
        return "unknown" if counted["answered"] else ""
    return f"{'≥ ' if counted['unknown_usage'] else ''}{found:,}"


def duration(seconds: float) -> str:
    """As people say it, in its two largest units."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    left, parts = round(seconds), []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2])


# Tables


def show_summary(console: Console, job: Job) -> None:
    """What came of it, model by model."""
    columns = ("model", "answered", "failed", "tokens in", "tokens out", "mean", "cost")
    rows = [
        (
            line(counted["model"]),
            f"{counted['answered']:,}",
            failures(counted) or "0",
            tokens(counted, "prompt_tokens"),
            tokens(counted, "completion_tokens"),
            mean(counted),
            cost(counted) or "none",
        )
        for counted in job["counts"]
    ]
    if rows:
        show_table(console, columns, rows, right=("answered", "tokens in", "tokens out", "mean"))


def show_list(console: Console, jobs: Sequence[Job]) -> None:
    """Many jobs, a line each."""
    columns = ("job", "made", "state", "done", "failed", "cost", "name")
    rows = [
        (
            job["id"],
            datetime.fromtimestamp(job["created_at"]).astimezone().strftime("%Y-%m-%d %H:%M"),
            job["state"],
            f"{job['progress']['ended']:,} of {job['calls']:,}",
            f"{job['progress']['failed']:,}",
            cost(job["progress"]),
            line(str(job["name"] or job["input"].get("name") or "")),
        )
        for job in jobs
    ]
    show_table(console, columns, rows, right=("done", "failed"))


def show_estimate(console: Console, estimate: Mapping[str, Any], most_usd: float | None) -> None:
    """What a job would ask, and what that may cost.

    Args:
        most_usd: what it may cost.
    """
    columns = ("model", "calls", "tokens in", "tokens out", "cost")
    rows = [
        (
            line(model["model"]),
            f"{model['calls']:,}",
            f"~{model['prompt_tokens']:,}",
            f"{'~' if model['guessed'] else '≤ '}{model['completion_tokens']:,}",
            "cost unknown" if model["cost_usd"] is None else f"~{money(model['cost_usd'])}",
        )
        for model in estimate["models"]
    ]
    show_table(console, columns, rows, right=("calls", "tokens in", "tokens out"))
    usd, least_s = estimate["cost_usd"], estimate["least_s"]
    unknown = ", ".join(estimate["cost_unknown"])
    notes = [
        f"{estimate['items']:,} rows, {estimate['calls']:,} calls; nothing was sent",
        f"cost: about {money(usd)}" if usd is not None else f"cost: unknown of {unknown}; a `price` in providers.json tells it",
        *([f"that is more than --max-cost {most_usd:g}: it would stop before"] if usd and most_usd and usd > most_usd else []),
        "time: no limits on requests or tokens are configured; each account gets what it bears"
        if least_s is None
        else f"time: at least {duration(least_s)} under the configured limits",
    ]
    if any(model["guessed"] for model in estimate["models"]):
        notes.append("~ tokens out: 256 for each answer, as no --max-tokens is set")
    for note in notes:
        console.print(Text(line(note)), soft_wrap=True)


def show_job(console: Console, job: Job) -> None:
    """How far a job is, on one picture."""
    said = [title(job), facts(job)]
    if job["reason"]:
        said.append(f"{job['state']}: {job['reason']}")
    for sentence in said:
        console.print(Text(line(sentence)), soft_wrap=True)
    show_summary(console, job)
