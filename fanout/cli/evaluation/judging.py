"""`fanout evaluate judge`, and the jobs of judges that other commands run to their end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from fanout.cli.batch.backend import JobBackend, find_job
from fanout.cli.batch.location import JobsLocation, run_with_jobs, with_location
from fanout.cli.batch.options import OutputOptions, read_text_option
from fanout.cli.batch.running import run_job
from fanout.cli.completion import complete_jobs, complete_models
from fanout.cli.options import ALL_ANSWERED, SOME_FAILED
from fanout.cli.output import echo
from fanout.core.json_text import JsonObject

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.rendering.job import JobJson

NO_FILES = OutputOptions((), as_json=False, quiet=False)


async def run_and_judge(jobs: JobBackend, job: JobJson, location: JobsLocation, output: OutputOptions) -> int:
    """Run a job and then the judges that it declares; return the exit code. See `run_job`."""
    return await judge_ended(jobs, job, location, await run_job(jobs, job, location, output))


async def judge_ended(jobs: JobBackend, job: JobJson, location: JobsLocation, code: int) -> int:
    """Run the judges of a job that has ended with this exit code, if every call of it has; return the exit code of both."""
    return max(code, await run_judges(jobs, job, job["scorers"], location)) if code in (ALL_ANSWERED, SOME_FAILED) else code


async def run_judges(jobs: JobBackend, job: JobJson, scorers: Sequence[JsonObject], location: JobsLocation) -> int:
    """Ask the judges among a job's scorers, until they have judged every answer; return the exit code."""
    judges = [scorer for scorer in scorers if scorer.get("type") == "judge"]
    code = ALL_ANSWERED
    while judges:
        found = await jobs.evaluation.score(job, judges)
        ids = [id_ for scorer in found["scorers"] for id_ in scorer["judge_jobs"]]
        judge_jobs = [await jobs.get(id_) for id_ in ids]
        open_ = next((judge_job for judge_job in judge_jobs if judge_job and judge_job["state"] != "done"), None)
        if open_ is None:
            break
        if open_["state"] in ("stopped", "cancelled", "expired"):
            # Stopped by its budget or a signal: whoever repeats the command wants it to go on.
            open_ = await jobs.resume(open_, {}, None, fork=False)
        code = max(code, await run_job(jobs, open_, location, NO_FILES))
        ended = await jobs.get(open_["id"])
        # Without this a judge whose budget is used up would be resumed again and again.
        if ended is None or ended["state"] != "done":
            break
    return code


@click.command()
@with_location
@click.argument("job", shell_complete=complete_jobs)
@click.option("-m", "--model", required=True, help="The judge.", shell_complete=complete_models)
@click.option("--rubric", callback=read_text_option, help="What a good answer is; `@FILE` reads it from a file.")
@click.option("--pairs", is_flag=True, help="Choose between two answers instead of scoring each from 1 to 5.")
@click.option("--order", type=click.Choice(["random", "both"]), help="Of pairs: random (both for a fifth), or both for all.")
@click.option("--retest", type=click.FloatRange(0, 1), help="Share of questions to repeat; default: 0.1.")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer of the judge, its reasons included.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="Of the judge; default: the provider's own.")
@click.option("--max-cost", "max_cost_usd", type=click.FloatRange(0, min_open=True), metavar="USD", help="Most it may cost.")
@click.option("--name", help="Its name in reports; default: judge.")
def judge(location: JobsLocation, job: str, pairs: bool, **options: str | float | None) -> None:
    """Let a model judge the answers of a job by a rubric, in a job of its own.

    Repeat the command to go on where it stopped: no question is sent twice. `fanout report JOB` shows the verdicts.
    """
    declared: JsonObject = {"type": "judge", "task": "pair" if pairs else "score"}
    declared |= {name: value for name, value in options.items() if value is not None}

    async def work(jobs: JobBackend) -> int:
        found = await find_job(jobs, job)
        if found["state"] != "done":
            raise click.ClickException(f"{found['id']} is {found['state']}: a job is judged when it is done")
        code = await run_judges(jobs, found, [declared], location)
        echo(f"judged; `{location.format_command('report', found['id'])}` shows the verdicts")
        return code

    run_with_jobs(work, location)
