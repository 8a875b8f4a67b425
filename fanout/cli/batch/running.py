"""A job run in the foreground: show it, stop it at a signal, write its results, and report how it ended."""

from __future__ import annotations

import asyncio
import shlex
import signal
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Self

from fanout.cli.batch.location import JobsLocation
from fanout.cli.batch.options import OutputOptions
from fanout.cli.job_progress import JobProgress
from fanout.cli.job_summary import format_duration, format_progress, format_title, print_counts
from fanout.cli.options import ALL_ANSWERED, SOME_FAILED, print_json
from fanout.cli.output import echo
from fanout.cli.tables import SafeConsole, print_line
from fanout.core.errors import LeaseLostError, RequestError, ServerError, StoreError
from fanout.store.jobs.records import OPEN_STATES, ResultFilter

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.cli.batch.backend import JobBackend, JobSnapshot
    from fanout.rendering.job import JobJson

UNFINISHED = 3
SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPING = "stopping: waiting for the calls in flight; press Ctrl-C again to end them now"
ABORTING = "ending the calls in flight"


class StopSignals:
    """A context in which a first signal stops the running job, a second aborts its calls, and a third ends the process."""

    def __init__(self, jobs: JobBackend) -> None:
        self._jobs = jobs
        self.first: signal.Signals | None = None
        self.notes: Sequence[str] = ()
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            # A handler of the loop, not of `signal`: it must not interrupt a database transaction.
            loop.add_signal_handler(number, self._handle, number)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def _restore(self) -> None:
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _handle(self, number: signal.Signals) -> None:
        if self.first is None:
            self.first, self.notes = number, (STOPPING,)
            self._task = asyncio.create_task(self._jobs.stop())  # a remote job is stopped over HTTP
            return
        self.notes = (ABORTING,)
        self._jobs.abort()
        self._restore()  # a third signal then ends the process as usual

    async def wait_for_stop(self) -> None:
        """Wait until the stop was requested, if a signal was received, and raise what that request raised."""
        if self._task:
            await self._task


async def run_job(jobs: JobBackend, job: JobJson, location: JobsLocation, output: OutputOptions) -> int:
    """Run a job to its end, write its results and report; return the exit code."""
    # Standard error: standard output is for results.
    screen, began = SafeConsole(stderr=True, quiet=output.quiet), time.monotonic()
    view = JobProgress(screen)
    view.expect(await jobs.list_labels(job), job["items"] * job["repeats"])
    if not screen.is_terminal:
        print_line(screen, format_title(job))
    with view, StopSignals(jobs) as signals:
        job, interruption = await _follow_run(jobs, job, view, signals)
    duration = format_duration(time.monotonic() - began)
    if interruption is None:
        return await report_end(jobs, job, location, output, f"after {duration}", signals.first)
    _report(job, output, f"after {duration}", location, has_results=False)
    _report_remaining_calls(job, location, output, interruption)
    return UNFINISHED


async def report_end(
    jobs: JobBackend,
    job: JobJson,
    location: JobsLocation,
    output: OutputOptions,
    when: str,
    stop_signal: signal.Signals | None = None,
) -> int:
    """Write the results of a job that has ended, and report it; return the exit code."""
    # Report all the same: a job that ran for hours is not lost because a disk is full.
    unwritten = await _write_results(jobs, job, output.outputs)
    _report(job, output, when, location, has_results=not unwritten)
    if job["state"] != "done":
        _report_remaining_calls(job, location, output, None)
    for file, reason in unwritten.items():  # even with --quiet
        echo(f"fanout: {reason}", err=True)
        echo(f"to write them: {_format_command('export', job, location, '-o', file)}", err=True)
    code = to_exit_code(job, stop_signal)
    # Not 2, which says that nothing was sent.
    return UNFINISHED if unwritten and code in (ALL_ANSWERED, SOME_FAILED) else code


async def report_resume_failure(
    jobs: JobBackend, job_id: str, location: JobsLocation, output: OutputOptions, error: RequestError
) -> int:
    """Report a job that need not be resumed as if it had been run here: it is done, or another process runs it.

    Raises:
        RequestError: it cannot be resumed for another reason, the `error`.
    """
    job = await jobs.get(job_id)
    if error.faults[0].kind != "wrong_state" or job is None or job["state"] not in ("done", *OPEN_STATES):
        raise error
    if job["state"] == "done":
        return await report_end(jobs, job, location, output, "already")
    _report_remaining_calls(job, location, output, LeaseLostError())
    return UNFINISHED


async def _write_results(jobs: JobBackend, job: JobJson, outputs: Sequence[str]) -> dict[str, str]:
    """Write the results of a job to each output; return those that could not be written, and why."""
    unwritten: dict[str, str] = {}
    for output in outputs:
        try:
            await jobs.export(job, output, None, ResultFilter())
        except (RequestError, StoreError, ServerError, OSError) as error:  # one that fails does not keep the others from it
            unwritten[output] = f"the results cannot be written to `{output}`: {error}"
    return unwritten


async def _follow_run(
    jobs: JobBackend, job: JobJson, view: JobProgress, signals: StopSignals
) -> tuple[JobJson, StoreError | ServerError | None]:
    try:
        async with aclosing(jobs.run(job)) as snapshots:
            async for snapshot in snapshots:
                job = snapshot.job
                view.show(job, [*snapshot.notes, *signals.notes])
        await signals.wait_for_stop()
    except (StoreError, ServerError) as error:
        return job, error
    return job, None


async def watch_job(snapshots: AsyncGenerator[JobSnapshot], view: JobProgress) -> JobJson | None:
    """Show a job to its end; return its last state."""
    job: JobJson | None = None
    with view:
        async with aclosing(snapshots):
            async for snapshot in snapshots:
                job = snapshot.job
                view.show(job, snapshot.notes)
    return job


def to_exit_code(job: JobJson, stop_signal: signal.Signals | None = None) -> int:
    """Return the exit code for the last state of a job, and for the signal that stopped it, if one did."""
    if job["state"] == "done":
        return SOME_FAILED if job["progress"]["failed"] else ALL_ANSWERED
    return UNFINISHED if stop_signal is None else 128 + stop_signal


def _report(job: JobJson, output: OutputOptions, when: str, location: JobsLocation, *, has_results: bool) -> None:
    if output.as_json:
        print_json(job)
    # Standard output takes either results, JSON or this summary, so that a program can read it.
    screen = SafeConsole(stderr=output.as_json or "-" in output.outputs, quiet=output.quiet)
    print_counts(screen, job)
    print_line(screen, f"{job['id']}: {job['state']} {when}; {format_progress(job)}")
    if has_results and output.outputs:
        files = ", ".join(file for file in output.outputs if file != "-")
        print_line(screen, f"results: {files or 'on standard output'}")
    elif job["progress"]["ended"]:
        print_line(screen, f"results: {_format_command('export', job, location, '-o', 'results.jsonl')}")
    if job["progress"]["failed"] and job["state"] == "done":
        print_line(screen, f"to retry the failures: {_format_command('retry', job, location, *output.file_options)}")


def _report_remaining_calls(
    job: JobJson, location: JobsLocation, output: OutputOptions, interruption: StoreError | ServerError | None
) -> None:
    # Even with --quiet: a script that ignores the exit code would take the results for whole.
    reason = interruption or job["reason"] or f"it is {job['state']}"
    echo(f"fanout: {job['id']} is unfinished: {reason}", err=True)
    if isinstance(interruption, LeaseLostError | ServerError):  # the job goes on elsewhere
        command = _format_command("status", job, location, "--watch")
    else:
        command = _format_command("resume", job, location, *output.file_options)
    echo(f"to continue: {command}", err=True)


def _format_command(verb: str, job: JobJson, location: JobsLocation, *options: str) -> str:
    return shlex.join(["fanout", "batch", verb, job["id"], *location.options, *options])
