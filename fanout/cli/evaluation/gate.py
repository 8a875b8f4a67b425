"""`fanout evaluate gate`: an exit code for a pipeline, and one sentence that says why."""

from __future__ import annotations

from collections.abc import Mapping

import click

from fanout.cli.batch.backend import JobBackend, find_job
from fanout.cli.batch.location import JobsLocation, run_with_jobs, with_location
from fanout.cli.completion import complete_jobs
from fanout.cli.options import print_json
from fanout.cli.output import echo
from fanout.evaluate.decisions.options import GateOptions

EXIT_CODES: Mapping[str, int] = {"pass": 0, "fail": 1, "inconclusive": 4}


@click.command()
@with_location
@click.argument("job", shell_complete=complete_jobs)
@click.option("--model", required=True, help="The candidate, by its label in the job.")
@click.option("--baseline", help="The model that it is compared with; with --baseline-job, default: of the same label.")
@click.option("--baseline-job", metavar="JOB", shell_complete=complete_jobs, help="An earlier job that has the baseline.")
@click.option("--margin", required=True, type=click.FloatRange(min=0), help="How much worse it may be, in the score's unit.")
@click.option("--metric", help="The scorer that decides; default: the job's only one.")
@click.option("--cluster", metavar="COLUMN", help="The rows' column that groups items which hang together: a document.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def gate(
    location: JobsLocation,
    job: str,
    model: str,
    baseline: str | None,
    baseline_job: str | None,
    margin: float,
    metric: str | None,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Decide whether a candidate is at most a margin worse than the baseline.

    With --baseline-job the two are compared on the rows that both jobs have, by their `custom_id`, else by their place.
    The exit code is 0 for pass, 1 for fail, 4 for inconclusive: the items do not tell. 2 is an error.
    """
    if baseline is None and baseline_job is None:
        raise click.UsageError("name the --baseline that the model is compared with, or the --baseline-job that has it")
    other = model if baseline is None else baseline

    async def work(jobs: JobBackend) -> int:
        earlier = (await find_job(jobs, baseline_job))["id"] if baseline_job is not None else None
        options = GateOptions(model, other, margin, metric, earlier)
        found = await jobs.evaluation.gate(await find_job(jobs, job), options, cluster)
        if as_json:
            print_json(found)
        else:
            echo(found["sentence"])
        return EXIT_CODES[found["verdict"]]

    run_with_jobs(work, location, is_reading=True)
