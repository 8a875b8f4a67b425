"""A job before a person's eyes: shows it run, stops at a signal, writes its results, says what came of it and what is next."""

from __future__ import annotations

import asyncio
import shlex
import signal
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import click
from rich.console import Console

from fanout.cli import job_progress
from fanout.cli.batch.backend import Job, Jobs, Seen, Which
from fanout.cli.batch.options import Showing
from fanout.cli.job_progress import Board
from fanout.cli.options import ALL_ANSWERED, SOME_FAILED, print_json
from fanout.core.errors import LeaseLost, RequestError, ServerError, StoreError

UNFINISHED = 3
SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPING = "stopping: what is under way is waited for; Ctrl-C once more ends it now"
CUTTING = "ending what is under way"


class Brake:
    """While its `with` lasts, a first signal stops the job that runs, a second one ends what is under way, a third one us."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self.pulled: signal.Signals | None = None
        """The first signal that came."""
        self.notes: Sequence[str] = ()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._pull, number)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._release()

    def _release(self) -> None:
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _pull(self, number: signal.Signals) -> None:
        if self.pulled is None:
            self.pulled, self.notes = number, (STOPPING,)
            task = asyncio.create_task(self._jobs.stop())
            self._tasks.add(task)
            return
        self.notes = (CUTTING,)
        self._jobs.cut()
        self._release()

    async def stopped(self) -> None:
        """Returns once the stop has been asked for.

        Raises:
            FanoutError: it could not be.
        """
        await asyncio.gather(*self._tasks)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a job is no longer seen to run."""

    why: str
    runs: bool
    """It still does, elsewhere."""


async def ran(jobs: Jobs, job: Job, showing: Showing) -> int:
    """Runs a job to its end, writes its results and says what came of it; the exit code.

    Raises:
        RequestError: its results cannot be written.
    """
    screen = Console(stderr=True, quiet=showing.quiet)
    view, began = Board(screen), time.monotonic()
    view.expect(await jobs.labels(job), job["items"] * job["repeats"])
    if not screen.is_terminal:
        _say(screen, job_progress.title(job))
    trouble: Trouble | None = None
    with view, Brake(jobs) as brake:
        try:
            async with aclosing(jobs.run(job)) as moments:
                async for seen in moments:
                    job = seen.job
                    view.show(job, [*seen.notes, *brake.notes])
            await brake.stopped()
        except (StoreError, ServerError) as error:
            trouble = Trouble(str(error), runs=isinstance(error, LeaseLost | ServerError))
    unwritten: RequestError | None = None
    try:
        for output in showing.outputs if trouble is None else ():
            await jobs.export(job, output, None, Which())
    except RequestError as error:
        unwritten = error
    _tell(job, showing, trouble, time.monotonic() - began, written=unwritten is None and trouble is None)
    if unwritten:
        raise unwritten
    return UNFINISHED if trouble else code_of(job, brake.pulled)


async def watched(moments: AsyncGenerator[Seen], view: Board) -> Job:
    """Sees a job run, to its end; as it then is."""
    job: Job = {}
    with view:
        async with aclosing(moments) as seen:
            async for moment in seen:
                job = moment.job
                view.show(job, moment.notes)
    return job


def code_of(job: Job, pulled: signal.Signals | None = None) -> int:
    """The exit code that tells how a job has ended.

    Args:
        pulled: the signal that has stopped it, if one has.
    """
    if job["state"] == "done":
        return SOME_FAILED if job["progress"]["failed"] else ALL_ANSWERED
    return UNFINISHED if pulled is None else 128 + pulled


def _tell(job: Job, showing: Showing, trouble: Trouble | None, run_s: float, *, written: bool) -> None:
    """What came of it, and what to do next: the table on standard output, unless results or JSON go there."""
    if showing.as_json:
        print_json(job)
    screen = Console(stderr=showing.as_json or "-" in showing.outputs, quiet=showing.quiet)
    job_progress.show_summary(screen, job)
    done, progress = job["state"] == "done", job["progress"]
    _say(screen, f"{job['id']}: {job['state']} after {job_progress.duration(run_s)}; {job_progress.facts(job)}")
    if written and showing.outputs:
        _say(screen, f"results: {', '.join(output for output in showing.outputs if output != '-') or 'on standard output'}")
    elif progress["ended"]:
        _say(screen, f"results: {command('export', job, [*showing.places, '-o', 'results.jsonl'])}")
    if progress["failed"] and done:
        _say(screen, f"what has failed again: {command('retry', job, [*showing.places, *showing.again])}")
    if trouble or not done:  # also where all is quiet: else nobody knew that something is left, and how to go on
        why = trouble.why if trouble else job["reason"] or f"it is {job['state']}"
        click.echo(f"fanout: {job['id']} has not come to its end: {why}", err=True)
        resumed = [*showing.places, *showing.again]
        verb, more = ("status", [*showing.places, "--watch"]) if trouble and trouble.runs else ("resume", resumed)
        click.echo(f"to go on: {command(verb, job, more)}", err=True)


def command(verb: str, job: Job, more: Sequence[str] = ()) -> str:
    """A command about a job, as it would be typed."""
    return shlex.join(["fanout", "batch", verb, job["id"], *more])


def _say(screen: Console, sentence: str) -> None:
    screen.print(sentence, markup=False, highlight=False, soft_wrap=True)
