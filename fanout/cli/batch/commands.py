"""`fanout batch`: rows × models, run here or by a server; shown while it runs, resumed, tried again, exported."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console

from fanout.cli import job_progress
from fanout.cli.batch.backend import Asked, Jobs, Which, named
from fanout.cli.batch.input import Input, open_input
from fanout.cli.batch.options import (
    Showing,
    changes_of,
    check_outputs,
    named_values,
    text_or_file,
    with_changes,
    with_server,
    with_showing,
)
from fanout.cli.batch.remote_jobs import open_jobs
from fanout.cli.batch.running import code_of, ran, watched
from fanout.cli.options import ALL_ANSWERED, key_of, print_json, settings_of, with_sampling, with_settings
from fanout.cli.side_by_side import line, show_table
from fanout.config.settings import Settings
from fanout.core.errors import RequestError
from fanout.core.faults import Fault
from fanout.core.schema import FailureKind
from fanout.jobs.job import JobState
from fanout.observability import logs
from fanout.rendering.encoding import encode_json

MOST_SHOWN = 50
"""Faults of an input that are listed."""
KINDS = click.Choice(get_args(FailureKind))
Work = Callable[[Jobs], Awaitable[int]]


@click.group(no_args_is_help=True)
def batch() -> None:
    """Ask many models every row of a file; stop, resume, retry and export such jobs.

    JOB is a job's id, the beginning of one, or `last`.
    """


@batch.command()
@with_settings
@with_server
@click.argument("given", metavar="INPUT")
@click.option("--format", "format_", help="jsonl, csv, tsv or parquet; by default by the file's ending, of `-` jsonl.")
@click.option("-m", "--model", "models", multiple=True, help="A model, an alias, a set or <provider>/<id>; once for each.")
@click.option(
    "--repeats", default=1, show_default=True, type=click.IntRange(1, 128), help="How often each model is asked each row."
)
@click.option("--template", callback=text_or_file, help="The prompt, with columns as {{name}}; `@FILE` reads it from a file.")
@with_sampling
@click.option("--strict", is_flag=True, help="What a model cannot take fails its call instead of being ignored or adjusted.")
@click.option("--cache", is_flag=True, help="Take answers that another job was given to the same question.")
@with_changes
@click.option("--name", help="Yours, for people.")
@click.option("--label", "metadata", metavar="NAME=VALUE", multiple=True, callback=named_values, help="Metadata of yours.")
@click.option("--dry-run", is_flag=True, help="Show calls, tokens, cost and time; nothing is sent or kept.")
@with_showing
def run(
    config_file: Path | None,
    env_file: Path | None,
    server: str | None,
    given: str,
    format_: str | None,
    dry_run: bool,
    **asked: Any,
) -> None:
    """Ask every row of INPUT of every model. Without -m: the embedded ones; `-` reads standard input.

    A row is `{"prompt": "…"}` or `{"messages": […]}`, or any columns for a --template; or a line of OpenAI's batches.
    Exits with 0 if all was answered, 1 if some calls failed, 2 if it could not ask, 3 if it stopped before its end.
    """
    places = {"server": server, "config": config_file, "env-file": env_file}
    showing = Showing.of(asked, places)
    with open_input(given, format_) as source:
        if given in showing.outputs and given != "-":
            raise click.UsageError(f"`{given}` is the input: results would overwrite it")
        work = _asked(asked, source.endpoint())

        async def begun(jobs: Jobs) -> int:
            try:
                if dry_run:
                    _show_estimate(await jobs.estimate(work, source), work, as_json=showing.as_json)
                    return ALL_ANSWERED
                job = await jobs.create(work, source)
            except RequestError as error:
                _refuse_rows(error)
                raise
            return await ran(jobs, job, showing)

        _do(begun, config_file, env_file, server, kept=not dry_run)


@batch.command()
@with_settings
@with_server
@click.argument("job")
@click.argument("given", metavar="[INPUT]", required=False)
@click.option("--format", "format_", help="Of INPUT: jsonl, csv, tsv or parquet; by default by the file's ending.")
@click.option("--fork", is_flag=True, help="Where its models or its input have changed: ask everything anew, in a new job.")
@with_changes
@with_showing
def resume(
    config_file: Path | None,
    env_file: Path | None,
    server: str | None,
    job: str,
    given: str | None,
    format_: str | None,
    fork: bool,
    **asked: Any,
) -> None:
    """Go on with a job that was stopped, cancelled, expired or cut off. What has ended is not asked again.

    With INPUT, it must be what the job was made of. Exits as `run` does.
    """
    showing = Showing.of(asked, {"server": server, "config": config_file, "env-file": env_file})
    changes = changes_of(asked)

    async def resumed(jobs: Jobs, source: Input | None) -> int:
        try:
            found = await jobs.resume(await named(jobs, job), changes, source, fork=fork)
        except RequestError as error:
            _refuse_rows(error)
            hint = [Fault("", "`--fork` asks everything anew, in a new job")]
            raise RequestError([*error.faults, *(hint if error.faults[0].kind == "changed" else ())]) from None
        return await ran(jobs, found, showing)

    if given is None:
        _do(lambda jobs: resumed(jobs, None), config_file, env_file, server)
        return
    with open_input(given, format_) as source:
        _do(lambda jobs: resumed(jobs, source), config_file, env_file, server)


@batch.command()
@with_settings
@with_server
@click.argument("job")
@click.option("--kind", "kinds", multiple=True, type=KINDS, help="Only failures of this kind; once for each.")
@with_changes
@with_showing
def retry(
    config_file: Path | None, env_file: Path | None, server: str | None, job: str, kinds: tuple[str, ...], **asked: Any
) -> None:
    """Ask again what has failed in a job that has ended. Exits as `run` does."""
    showing = Showing.of(asked, {"server": server, "config": config_file, "env-file": env_file})
    changes = changes_of(asked)

    async def retried(jobs: Jobs) -> int:
        found = await named(jobs, job)
        failed = {kind for counted in found["counts"] for kind in counted["failures"]}
        if found["state"] == "done" and not failed & set(kinds or failed):
            others = f"; {job_progress.facts(found)}" if failed else ""
            click.echo(f"{found['id']}: nothing has failed{' in that way' if kinds else ''}{others}", err=True)
            return code_of(found)
        return await ran(jobs, await jobs.retry(found, kinds, changes), showing)

    _do(retried, config_file, env_file, server)


@batch.command()
@with_settings
@with_server
@click.argument("job")
@click.option("--watch", is_flag=True, help="Stay until it has ended, whoever runs it; then exit as `run` does.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON; with --watch, a line whenever it has changed.")
def status(config_file: Path | None, env_file: Path | None, server: str | None, job: str, watch: bool, as_json: bool) -> None:
    """Show how far a job is."""

    async def shown(jobs: Jobs) -> int:
        found = await named(jobs, job)
        if watch and as_json:
            async for seen in jobs.watch(found):
                if (found := seen.job) is not None:
                    click.echo(encode_json(found))
                    sys.stdout.flush()
            return code_of(found)
        if watch:
            found = await watched(jobs.watch(found), job_progress.Board(Console(stderr=True))) or found
        if as_json:
            print_json(found)
        else:
            job_progress.show_job(Console(), found)
        return code_of(found) if watch else ALL_ANSWERED

    _do(shown, config_file, env_file, server)


@batch.command(name="list")
@with_settings
@with_server
@click.option("--state", type=click.Choice(get_args(JobState)), help="Only jobs in this state.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many, the newest first.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_(
    config_file: Path | None, env_file: Path | None, server: str | None, state: str | None, limit: int, as_json: bool
) -> None:
    """List the jobs, the newest first."""

    async def listed(jobs: Jobs) -> int:
        found = await jobs.listed(limit, state)
        if as_json:
            print_json({"object": "list", "data": found})
        elif found:
            job_progress.show_list(Console(), found)
        else:
            click.echo("no jobs", err=True)
        return ALL_ANSWERED

    _do(listed, config_file, env_file, server)


@batch.command()
@with_settings
@with_server
@click.argument("job")
@click.option("-o", "--output", default="-", help="A .jsonl, .csv or .parquet file; by default JSONL on standard output.")
@click.option("--format", "format_", help="jsonl, csv or parquet; by default by the file's ending.")
@click.option("--failed", is_flag=True, help="Only failures.")
@click.option("--answered", is_flag=True, help="Only answers.")
@click.option("-m", "--model", help="Only this model's, by the name under which it was asked.")
@click.option("--kind", type=KINDS, help="Only failures of this kind.")
@click.option("--different", is_flag=True, help="Only of rows that were answered differently.")
def export(
    config_file: Path | None,
    env_file: Path | None,
    server: str | None,
    job: str,
    output: str,
    format_: str | None,
    failed: bool,
    answered: bool,
    **which: Any,
) -> None:
    """Write a job's results, a record for each call that has ended, in the order of the input."""
    if failed and answered:
        raise click.UsageError("--failed and --answered exclude each other: without both, everything is written")
    check_outputs([output], format_)

    async def exported(jobs: Jobs) -> int:
        found = await named(jobs, job)
        chosen = Which(failed=True if failed else False if answered else None, **which)
        await jobs.export(found, output, format_, chosen)
        return ALL_ANSWERED

    _do(exported, config_file, env_file, server)


@batch.command()
@with_settings
@with_server
@click.argument("job")
def cancel(config_file: Path | None, env_file: Path | None, server: str | None, job: str) -> None:
    """Have nothing more sent of a job, whoever runs it; what is under way is waited for."""

    async def cancelled(jobs: Jobs) -> int:
        found = await named(jobs, job)
        if found["state"] in ("done", "expired"):
            raise click.ClickException(f"{found['id']} is {found['state']}: there is nothing to cancel")
        click.echo(job_progress.title(await jobs.cancel(found)))
        return ALL_ANSWERED

    _do(cancelled, config_file, env_file, server)


# What they share


def _do(work: Work, config_file: Path | None, env_file: Path | None, server: str | None, *, kept: bool = True) -> None:
    """Does something with the jobs of a server, or of the own store; ends with its exit code.

    Raises:
        ClickException: with every fault on a line of its own.
    """

    async def done() -> int:
        async with _opened(config_file, env_file, server, kept=kept) as jobs:
            return await work(jobs)

    try:
        code = asyncio.run(done())
    except RequestError as error:
        raise click.ClickException("\n".join(map(str, error.faults))) from None
    sys.exit(code)


@asynccontextmanager
async def _opened(config_file: Path | None, env_file: Path | None, server: str | None, *, kept: bool) -> AsyncGenerator[Jobs]:
    if server:
        async with open_jobs(server, key_of(env_file)) as remote:
            yield remote
        return
    from fanout.cli.batch.local_jobs import open_own  # with all that calls models: who asks a server needs none of it

    settings = settings_of(config_file, env_file)
    _configure_log(settings)
    async with open_own(settings, kept=kept) as own:
        yield own


def _configure_log(settings: Settings) -> None:
    """Errors alone, unless more is asked for: the board shows the rest."""
    environment = settings.environment
    level = environment.log_level if "log_level" in environment.model_fields_set else "error"
    logs.configure(level, environment.log_format)


def _asked(asked: dict[str, Any], endpoint: str | None) -> Asked:
    """What the options ask.

    Raises:
        UsageError: they are none of the input's, whose lines say it all.
    """
    parameters = {name: asked.pop(name) for name in ("max_tokens", "temperature", "top_p", "seed", "stop")}
    parameters = {name: value for name, value in parameters.items() if value not in (None, ())}
    models, metadata = asked.pop("models"), asked.pop("metadata")
    changes = changes_of(asked)
    if endpoint is None:
        models = models or ("embedded",)
    else:
        others = {**asked, "model": models, **parameters, "repeats": asked["repeats"] - 1}
        said = [name for name, value in others.items() if value and name not in ("name", "cache")]
        if said:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in said)
            raise click.UsageError(f"the lines of INPUT name their models and parameters themselves: leave out {options}")
    return Asked(models=models, parameters=parameters, metadata=metadata, endpoint=endpoint, changes=changes, **asked)


def _show_estimate(estimate: dict[str, Any], work: Asked, *, as_json: bool) -> None:
    if as_json:
        print_json(estimate)
    else:
        job_progress.show_estimate(Console(), estimate, work.changes.get("max_cost_usd"))


def _refuse_rows(error: RequestError) -> None:
    """Bad rows as a table.

    Raises:
        ClickException: there are any.
    """
    placed = [fault for fault in error.faults if fault.path.startswith("line ")]
    if not placed:
        return
    rows = []
    for fault in placed[:MOST_SHOWN]:
        where, _, field = fault.path.partition(": ")
        rows.append((where.removeprefix("line "), line(field), line(fault.message)))
    show_table(Console(stderr=True), ("line", "field", "what is wrong"), rows, right=("line",))
    bad = len({fault.path.partition(":")[0] for fault in placed})
    more = f"; {len(placed) - MOST_SHOWN} more faults" if len(placed) > MOST_SHOWN else ""
    others = "".join(f"; {fault}" for fault in error.faults if fault not in placed)
    raise click.ClickException(f"{bad} bad row{'' if bad == 1 else 's'}{more}{others}; nothing was sent")
