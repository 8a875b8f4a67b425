"""`fanout batch`: a job calls many models for every row of a file; it can be stopped, resumed, retried and exported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import click

from fanout.cli.batch.backend import JobBackend, find_job
from fanout.cli.batch.input import JobInput, open_input
from fanout.cli.batch.location import JobsLocation, run_with_jobs, with_location
from fanout.cli.batch.options import (
    OutputOptions,
    check_outputs,
    parse_labels,
    read_text_option,
    to_spec,
    with_limits,
    with_output,
    with_way,
)
from fanout.cli.batch.running import report_resume_failure, to_exit_code, watch_job
from fanout.cli.completion import complete_files, complete_jobs, complete_models
from fanout.cli.evaluation.judging import judge_ended, run_and_judge
from fanout.cli.evaluation.options import with_failure_policy, with_scorers, with_stopping
from fanout.cli.job_progress import JobProgress
from fanout.cli.job_summary import format_progress, format_title, print_estimate, print_job, print_jobs
from fanout.cli.options import ALL_ANSWERED, model_option, print_json, with_sampling
from fanout.cli.output import echo, echo_json
from fanout.cli.tables import SafeConsole, print_table
from fanout.core.errors import Fault, RequestError
from fanout.core.json_text import JsonObject
from fanout.core.schema import FailureKind
from fanout.core.shown_text import to_single_line
from fanout.store.jobs.records import JobState, ResultFilter

MAX_SHOWN_FAULTS = 50
KINDS = click.Choice(get_args(FailureKind))


@click.group(no_args_is_help=True)
def batch() -> None:
    """Ask many models every row of a file; stop, resume, retry and export such jobs.

    JOB is the id of a job, the beginning of one, or `last`.
    """


@batch.command()
@with_location
@click.argument("path", metavar="INPUT", shell_complete=complete_files)
@click.option("--format", "format_", help="jsonl, csv, tsv, txt or parquet; default: from the file's suffix, jsonl for `-`.")
@model_option(complete_models)
@click.option(
    "--repeats", default=1, show_default=True, type=click.IntRange(1, 128), help="How often to ask each model each row."
)
@click.option(
    "--template", callback=read_text_option, help="The prompt, with columns as {{name}}; `@FILE` reads it from a file."
)
@with_sampling
@click.option("--strict", is_flag=True, help="Fail a call with unsupported parameters instead of ignoring or adjusting them.")
@click.option("--self-fusions", is_flag=True, help="Fuse the members of every fusion with themselves, too: see the report.")
@with_way
@with_limits
@with_scorers
@with_failure_policy
@with_stopping
@click.option("--name", help="A name for people.")
@click.option("--label", "metadata", metavar="NAME=VALUE", multiple=True, callback=parse_labels, help="Your own metadata.")
@click.option("--dry-run", is_flag=True, help="Show calls, tokens, cost and time; send and store nothing.")
@with_output
def run(
    location: JobsLocation,
    path: str,
    format_: str | None,
    dry_run: bool,
    limits: JsonObject,
    output: OutputOptions,
    **options: Any,
) -> None:
    """Ask every model every row of INPUT. Without -m: the set `mine`, else the embedded models; `-` reads standard input.

    A row is `{"prompt": "…"}` or `{"messages": […]}`, or any columns for a --template; or a line of an OpenAI batch file.
    Exits with 0 if everything was answered, 1 if some calls failed, 2 if nothing could be sent, 3 if the job is unfinished.
    """
    with open_input(path, format_) as source:
        # Before anything is paid: the results would replace the rows that they are about.
        if path in output.outputs and path != "-":
            raise click.UsageError(f"`{path}` is the input: results would overwrite it")
        described = to_spec(options, limits, source.find_endpoint())

        async def work(jobs: JobBackend) -> int:
            spec = described
            if spec.endpoint is None:
                words = [str(row["model"]) for row in spec.models]
                spec = replace(spec, models=tuple({"model": name} for name in await jobs.choose_models(words)))
            try:
                if dry_run:
                    estimate = await jobs.estimate(spec, source)
                    if output.as_json:
                        print_json(estimate)
                    else:
                        print_estimate(SafeConsole(), estimate, spec.max_cost_usd, in_batches=spec.via == "batch")
                    return ALL_ANSWERED
                job = await jobs.create(spec, source)
            except RequestError as error:
                _refuse_bad_rows(error)
                raise
            return await run_and_judge(jobs, job, location, output)

        run_with_jobs(work, location, in_memory=dry_run)


@batch.command()
@with_location
@click.argument("job", shell_complete=complete_jobs)
@click.argument("path", metavar="[INPUT]", required=False, shell_complete=complete_files)
@click.option("--format", "format_", help="Of INPUT: jsonl, csv, tsv, txt or parquet; default: from the file's suffix.")
@click.option("--fork", is_flag=True, help="If models or input have changed: ask everything again, in a new job.")
@with_limits
@with_output
def resume(
    location: JobsLocation,
    job: str,
    path: str | None,
    format_: str | None,
    fork: bool,
    limits: JsonObject,
    output: OutputOptions,
) -> None:
    """Continue a job that was stopped, cancelled, interrupted or expired. Calls that have ended are not repeated.

    INPUT, if given, must be the job's input. Exits like `run`, also for a job that is done, whose results it writes.
    """

    async def work(jobs: JobBackend, source: JobInput | None = None) -> int:
        found = await find_job(jobs, job)
        try:
            resumed = await jobs.resume(found, limits, source, fork=fork)
            return await run_and_judge(jobs, resumed, location, output)
        except RequestError as error:
            _refuse_bad_rows(error)
            hint = [Fault("", "`--fork` asks everything again, in a new job")]
            refusal = RequestError([*error.faults, *(hint if error.faults[0].kind == "changed" else ())])
            if fork:
                raise refusal from None
            code = await report_resume_failure(jobs, found["id"], location, output, refusal)
            return await judge_ended(jobs, found, location, code)

    if path is None:
        run_with_jobs(work, location)
        return
    with open_input(path, format_) as source:
        run_with_jobs(lambda jobs: work(jobs, source), location)


@batch.command()
@with_location
@click.argument("job", shell_complete=complete_jobs)
@click.option("--kind", "kinds", multiple=True, type=KINDS, help="Only failures of this kind; may be repeated.")
@with_limits
@with_output
def retry(location: JobsLocation, job: str, kinds: Sequence[str], limits: JsonObject, output: OutputOptions) -> None:
    """Repeat the failed calls of a job that has ended. Exits like `run`."""

    async def work(jobs: JobBackend) -> int:
        found = await find_job(jobs, job)
        failed = {kind for counts in found["counts"] for kind in counts["failures"]}
        # A job that has nothing to retry keeps its end: reopened, it would get a new time of ending.
        if found["state"] == "done" and not failed & set(kinds or failed):
            others = f"; {format_progress(found)}" if failed else ""
            echo(f"{found['id']}: there are no failures{' of that kind' if kinds else ''}{others}", err=True)
            return to_exit_code(found)
        return await run_and_judge(jobs, await jobs.retry(found, kinds, limits), location, output)

    run_with_jobs(work, location)


@batch.command()
@with_location
@click.argument("job", shell_complete=complete_jobs)
@click.option("--watch", is_flag=True, help="Wait until the job ends, wherever it runs; then exit like `run`.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON; with --watch, a line for each change.")
def status(location: JobsLocation, job: str, watch: bool, as_json: bool) -> None:
    """Show the progress of a job."""

    async def work(jobs: JobBackend) -> int:
        found = await find_job(jobs, job)
        if watch and as_json:
            async for snapshot in jobs.watch(found):
                found = snapshot.job
                echo_json(found)
                sys.stdout.flush()  # a pipe buffers, and its reader waits for this line
            return to_exit_code(found)
        if watch:
            found = await watch_job(jobs.watch(found), JobProgress(SafeConsole(stderr=True))) or found
        if as_json:
            print_json(found)
        else:
            print_job(SafeConsole(), found)
        return to_exit_code(found) if watch else ALL_ANSWERED

    run_with_jobs(work, location, is_reading=True)


@batch.command(name="list")
@with_location
@click.option("--state", type=click.Choice(get_args(JobState)), help="Only jobs in this state.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="Maximum number of jobs.")
@click.option("--json", "as_json", is_flag=True, help="Print the jobs as JSON.")
def list_(location: JobsLocation, state: str | None, limit: int, as_json: bool) -> None:
    """List the jobs, the newest first."""

    async def work(jobs: JobBackend) -> int:
        found = await jobs.list_jobs(limit, state)
        if as_json:
            print_json({"object": "list", "data": found})
        elif found:
            print_jobs(SafeConsole(), found)
        else:
            echo("no jobs", err=True)
        return ALL_ANSWERED

    run_with_jobs(work, location, is_reading=True)


@batch.command()
@with_location
@click.argument("job", shell_complete=complete_jobs)
@click.option(
    "-o",
    "--output",
    default="-",
    help="A .jsonl, .csv or .parquet file; default: JSONL on standard output.",
    shell_complete=complete_files,
)
@click.option("--format", "format_", help="jsonl, csv or parquet; default: from the file's suffix.")
@click.option("--failed", is_flag=True, help="Only failures.")
@click.option("--answered", is_flag=True, help="Only answers.")
@click.option("-m", "--model", help="Only results of this model, by its label in the job.")
@click.option("--kind", type=KINDS, help="Only failures of this kind.")
@click.option("--different", is_flag=True, help="Only rows whose answers differ.")
@click.option(
    "--quote-formulas", is_flag=True, help="CSV: keep spreadsheets from computing texts that begin with =, +, - or @."
)
def export(
    location: JobsLocation,
    job: str,
    output: str,
    format_: str | None,
    failed: bool,
    answered: bool,
    quote_formulas: bool,
    **options: Any,
) -> None:
    """Write the results of a job: a record for each call that has ended, in the order of the input."""
    if failed and answered:
        raise click.UsageError("--failed and --answered exclude each other: without both, everything is written")
    check_outputs([output], format_, quote_formulas=quote_formulas)
    chosen = ResultFilter(failed=True if failed else False if answered else None, **options)

    async def work(jobs: JobBackend) -> int:
        await jobs.export(await find_job(jobs, job), output, format_, chosen, quote_formulas=quote_formulas)
        return ALL_ANSWERED

    run_with_jobs(work, location, is_reading=True)


@batch.command()
@with_location
@click.argument("job", shell_complete=complete_jobs)
def cancel(location: JobsLocation, job: str) -> None:
    """Send no more calls of a job, wherever it runs; calls in flight are waited for."""

    async def work(jobs: JobBackend) -> int:
        found = await find_job(jobs, job)
        if found["state"] in ("done", "expired"):
            raise click.ClickException(f"{found['id']} is {found['state']}: there is nothing to cancel")
        echo(format_title(await jobs.cancel(found)))
        return ALL_ANSWERED

    run_with_jobs(work, location)


def _refuse_bad_rows(error: RequestError) -> None:
    """Print the faults of rows as a table and raise ClickException, if there are any."""
    placed = [fault for fault in error.faults if fault.path.startswith("line ")]
    if not placed:
        return
    rows = []
    for fault in placed[:MAX_SHOWN_FAULTS]:
        place, _, field = fault.path.partition(": ")
        rows.append((place.removeprefix("line "), to_single_line(field), to_single_line(fault.message)))
    print_table(SafeConsole(stderr=True), ("line", "field", "what is wrong"), rows, right=("line",))
    bad = len({fault.path.partition(":")[0] for fault in placed})  # rows, not faults: a row may have several
    more = f"; {len(placed) - MAX_SHOWN_FAULTS} more faults" if len(placed) > MAX_SHOWN_FAULTS else ""
    others = "".join(f"; {fault}" for fault in error.faults if fault not in placed)
    raise click.ClickException(f"{bad} bad row{'' if bad == 1 else 's'}{more}{others}; nothing was sent")
