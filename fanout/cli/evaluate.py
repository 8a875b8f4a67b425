"""`fanout evaluate`: scores of a job's answers, and what they decide."""

from __future__ import annotations

from collections.abc import Sequence

import click

from fanout.cli.batch.backend import JobBackend, find_job
from fanout.cli.batch.location import JobsLocation, run_with_jobs, with_location
from fanout.cli.completion import complete_jobs
from fanout.cli.evaluation.gate import gate
from fanout.cli.evaluation.judging import judge, run_judges
from fanout.cli.evaluation.label import label
from fanout.cli.evaluation.options import with_scorers
from fanout.cli.evaluation.plan import plan
from fanout.cli.options import print_json
from fanout.cli.tables import SafeConsole, print_table
from fanout.core.json_text import JsonObject
from fanout.core.shown_text import to_single_line


@click.group(no_args_is_help=True)
def evaluate() -> None:
    """Score a job's answers, and decide by the scores.

    JOB is the id of a job, the beginning of one, or `last`.
    """


@evaluate.command()
@with_location
@click.argument("job", shell_complete=complete_jobs)
@with_scorers
@click.option("--json", "as_json", is_flag=True, help="Print the job's scorers as JSON.")
def score(location: JobsLocation, job: str, scorers: Sequence[JsonObject], as_json: bool) -> None:
    """Score the stored answers of a job. Only judges call a model; answers scored before are not scored again."""
    if not scorers:
        raise click.UsageError("name at least one --scorer")

    async def work(jobs: JobBackend) -> int:
        kept = await find_job(jobs, job)
        found = await jobs.evaluation.score(kept, scorers)
        code = await run_judges(jobs, kept, scorers, location)
        if as_json:
            print_json(found)
        else:
            rows = [
                (to_single_line(row["name"]), f"{row['scored']:,}", f"{row['unscored']:,}", row["version"])
                for row in found["scorers"]
            ]
            print_table(SafeConsole(), ("scorer", "scored", "unscored", "version"), rows, right=("scored", "unscored"))
        return code

    run_with_jobs(work, location)


for command in (judge, label, plan, gate):
    evaluate.add_command(command)
