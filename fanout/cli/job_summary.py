"""A batch job, as `GET /v1/jobs/{job_id}` returns it, in words and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from fanout.cli.output import format_usd
from fanout.cli.tables import MIN_LAST_COLUMNS, drop_columns, print_line, print_table
from fanout.core.shown_text import to_single_line

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.rendering.job import JobCountsJson, JobEstimateJson, JobJson, JobProgressJson

UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def format_title(job: JobJson) -> str:
    """Return the job's id, name, size and state."""
    name = job["name"] or job["input"].get("name")
    rows, calls = job["items"], job["calls"]
    size = f"{rows:,} row{'' if rows == 1 else 's'}, {calls:,} call{'' if calls == 1 else 's'}"
    return to_single_line(" · ".join([job["id"], *([str(name)] if name else []), size, job["state"]]))


def format_progress(job: JobJson) -> str:
    """Return the share that has ended, the failures, pace, cost and time left, in one line."""
    return " · ".join(part for part in (format_share(job), format_pace(job)) if part)


def format_share(job: JobJson) -> str:
    """Return the number and percentage of calls that have ended."""
    ended, calls = job["progress"]["ended"], job["calls"]
    # Rounded down: 100 % while calls are still running would be wrong.
    return f"{ended:,} of {calls:,}" + (f" · {ended * 100 // calls} %" if calls else "")


def format_pace(job: JobJson) -> str:
    """Return the failures, the pace, the cost and the time left."""
    progress = job["progress"]
    failures: Counter[str] = Counter()
    for counts in job["counts"]:
        failures.update(counts["failures"])
    # A job that is stopped has no time left to wait for, whatever its rate was.
    left_s = progress["left_s"] if progress["left"] and job["state"] in ("running", "queued") else None
    parts = [
        f"{progress['failed']:,} failed ({format_kinds(failures)})" if progress["failed"] else "",
        format_rate(progress["calls_per_second"]) if progress["calls_per_second"] and progress["left"] else "",
        format_cost(progress) if progress["ended"] else "",
        f"{format_duration(left_s)} left" if left_s is not None else "",
    ]
    return " · ".join(part for part in parts if part)


def format_kinds(failures: Mapping[str, int]) -> str:
    """Return failures by kind, the most frequent first, in the words that `--kind` takes."""
    return ", ".join(f"{kind} {number:,}" for kind, number in sorted(failures.items(), key=lambda item: -item[1]))


def format_failures(counts: JobCountsJson) -> str:
    """Return the number of failures and their kinds; empty if there are none."""
    failures = counts["failures"]
    return f"{sum(failures.values()):,} ({format_kinds(failures)})" if failures else ""


def format_rate(per_second: float) -> str:
    """Return a rate by the second, or by the minute if it is low."""
    return f"{per_second:.1f}/s" if per_second >= 0.1 or not per_second else f"{per_second * 60:.1f}/min"


def format_mean_time(counts: JobCountsJson) -> str:
    """Return the mean time of a call."""
    return "" if counts["mean_ms"] is None else f"{counts['mean_ms'] / 1e3:.2f} s"


def format_cost(counts: JobCountsJson | JobProgressJson) -> str:
    """Return the known cost, and the number of calls whose cost is unknown."""
    usd, unknown = counts["cost_usd"], counts["cost_unknown"]
    if usd is None:
        return "cost unknown" if unknown else ""
    return format_usd(usd) + (f" + {unknown:,} unknown" if unknown else "")


def format_tokens(counts: JobCountsJson, name: Literal["prompt_tokens", "completion_tokens"]) -> str:
    """Return a sum of tokens, with `≥` if some answers reported no usage."""
    tokens = counts[name]
    if tokens is None:
        return "unknown" if counts["answered"] else ""
    return f"{'≥ ' if counts['unknown_usage'] else ''}{tokens:,}"  # a sum without some answers is a lower bound


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    left, parts = round(seconds), []
    for size, unit in UNITS:
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2])


def print_job(console: Console, job: JobJson) -> None:
    """Print the state of a job and its sums by model."""
    reason = [f"{job['state']}: {job['reason']}"] if job["reason"] else []
    for line in (format_title(job), format_progress(job), *reason):
        print_line(console, to_single_line(line))
    print_counts(console, job)


def print_counts(console: Console, job: JobJson) -> None:
    """Print the sums of a job by model."""
    columns: Sequence[str] = ("model", "answered", "failed", "tokens in", "tokens out", "mean", "cost")
    rows: Sequence[Sequence[str]] = [
        (
            to_single_line(counts["model"]),
            f"{counts['answered']:,}",
            format_failures(counts) or "0",
            format_tokens(counts, "prompt_tokens"),
            format_tokens(counts, "completion_tokens"),
            format_mean_time(counts),
            format_cost(counts) or "none",
        )
        for counts in job["counts"]
    ]
    if rows:
        columns, rows = drop_columns(console, columns, rows, ("tokens in", "tokens out", "mean"), len("cost unknown"))
        print_table(console, columns, rows, right=("answered", "tokens in", "tokens out", "mean"))


def print_jobs(console: Console, jobs: Sequence[JobJson]) -> None:
    """Print a line for each job."""
    columns: Sequence[str] = ("job", "made", "state", "done", "failed", "cost", "name")
    rows: Sequence[Sequence[str]] = [
        (
            job["id"],
            datetime.fromtimestamp(job["created_at"]).astimezone().strftime("%Y-%m-%d %H:%M"),
            job["state"],
            f"{job['progress']['ended']:,} of {job['calls']:,}",
            f"{job['progress']['failed']:,}",
            format_cost(job["progress"]),
            to_single_line(str(job["name"] or job["input"].get("name") or "")),
        )
        for job in jobs
    ]
    columns, rows = drop_columns(console, columns, rows, ("made", "cost", "failed", "done", "state"), MIN_LAST_COLUMNS)
    print_table(console, columns, rows, right=("done", "failed"))


def print_estimate(
    console: Console, estimate: JobEstimateJson, max_cost_usd: float | None, *, in_batches: bool = False
) -> None:
    """Print the calls, tokens, cost and time of a job that was not started; `in_batches`: of the providers' own."""
    columns = ("model", "calls", "tokens in", "tokens out", "cost")
    rows = [
        (
            to_single_line(model["model"]),
            f"{model['calls']:,}",
            f"~{model['prompt_tokens']:,}",
            f"{'~' if model['guessed'] else '≤ '}{model['completion_tokens']:,}",
            "cost unknown" if model["cost_usd"] is None else f"~{format_usd(model['cost_usd'])}",
        )
        for model in estimate["models"]
    ]
    print_table(console, columns, rows, right=("calls", "tokens in", "tokens out"))
    for note in _list_estimate_notes(estimate, max_cost_usd, in_batches=in_batches):
        print_line(console, to_single_line(note))


def _list_estimate_notes(estimate: JobEstimateJson, max_cost_usd: float | None, *, in_batches: bool) -> list[str]:
    usd, least_s = estimate["cost_usd"], estimate["least_s"]
    notes = [f"{estimate['items']:,} rows, {estimate['calls']:,} calls; nothing was sent", *estimate["not_configured"]]
    if usd is None:
        unpriced = ", ".join(estimate["cost_unknown"])
        notes.append(f"cost: unknown for {unpriced}; set a `price` in providers.json")
    else:
        notes.append(f"cost: about {format_usd(usd)}")
        if usd and max_cost_usd and usd > max_cost_usd:
            notes.append(f"that is more than --max-cost {max_cost_usd:g}: the job would stop early")
    if in_batches:
        notes.append("time: as long as the providers' own batches take, up to a day")
    elif least_s is None:
        notes.append("time: no limits on requests or tokens are configured; the pace adapts to what each account allows")
    else:
        notes.append(f"time: at least {format_duration(least_s)} under the configured limits")
    if any(model["guessed"] for model in estimate["models"]):
        notes.append("~ tokens out: 256 for each answer, because no --max-tokens is set")
    return notes
