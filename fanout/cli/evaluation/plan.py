"""`fanout evaluate plan`: how many items a difference needs, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fanout.cli.batch.backend import JobBackend, find_job
from fanout.cli.batch.location import JobsLocation, run_with_jobs, with_location
from fanout.cli.completion import complete_jobs
from fanout.cli.options import ALL_ANSWERED, print_json
from fanout.cli.output import echo, format_usd
from fanout.cli.tables import SafeConsole, print_table
from fanout.core.errors import RequestError, explain_missing_extra
from fanout.core.shown_text import to_single_line
from fanout.evaluate.decisions.options import PlanOptions
from fanout.rendering.figures import format_cell

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.rendering.decisions import PlanJson

SHARE = click.FloatRange(0, 1)
CHANCE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command()
@with_location
@click.argument("job", required=False, shell_complete=complete_jobs)
@click.option("--difference", type=click.FloatRange(min=0, min_open=True), help="The smallest difference worth seeing.")
@click.option("--better", type=SHARE, help="Without a job: the share of items that only A has right.")
@click.option("--worse", type=SHARE, help="Without a job: the share of items that only B has right.")
@click.option("--item-usd", type=click.FloatRange(min=0), help="Without a job: US dollars for an item, both models together.")
@click.option("--model", help="A model of the pilot, to be compared with the baseline; default: every two.")
@click.option("--baseline", help="The model that it is compared with; with --baseline-job, default: of the same label.")
@click.option("--baseline-job", metavar="JOB", shell_complete=complete_jobs, help="An earlier job that has the baseline.")
@click.option("--metric", help="The scorer; default: the pilot's only one.")
@click.option("--alpha", type=CHANCE, default=0.05, show_default=True, help="Chance to see a difference where there is none.")
@click.option("--power", type=CHANCE, default=0.8, show_default=True, help="Chance to see it where it is.")
@click.option("--repeats", type=click.IntRange(1, 128), default=1, show_default=True, help="Samples of each item and model.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(location: JobsLocation, job: str | None, as_json: bool, **options: Any) -> None:
    """Tell how many items show a difference, what p-value they could reach, and what they cost.

    JOB is a pilot: a small job with scores. Without one, give --better and --worse.
    """
    rates = {name: options.pop(name) for name in ("better", "worse", "item_usd")}
    if job is None and any(options[name] is not None for name in ("model", "baseline", "baseline_job")):
        raise click.UsageError("--model, --baseline and --baseline-job name models of a pilot JOB: name that, too")
    if job is None:
        _print(_plan_from_rates(rates, options), as_json)
        return
    if any(value is not None for value in rates.values()):
        raise click.UsageError("--better, --worse and --item-usd are for a plan without a pilot: the job has them")
    if options["difference"] is None:
        raise click.UsageError("name the --difference that you want to see")

    async def work(jobs: JobBackend) -> int:
        if options["baseline_job"] is not None:
            options["baseline_job"] = (await find_job(jobs, options["baseline_job"]))["id"]
            options["baseline"] = options["baseline"] or options["model"]
        _print(await jobs.evaluation.plan(await find_job(jobs, job), PlanOptions(**options)), as_json)
        return ALL_ANSWERED

    run_with_jobs(work, location, is_reading=True)


def _plan_from_rates(rates: dict[str, float | None], options: dict[str, Any]) -> PlanJson:
    better, worse = rates["better"], rates["worse"]
    if better is None or worse is None:
        raise click.UsageError("name a pilot JOB, or both --better and --worse")
    try:
        from fanout.evaluate.decisions.plan import plan_from_rates
    except ImportError as error:
        raise click.ClickException(f"needs {explain_missing_extra(error.name or 'scipy', 'evaluate')}") from None
    from fanout.rendering.decisions import render_plan

    # The shares imply a difference: the plan is for seeing just that.
    difference = abs(better - worse) if options["difference"] is None else options["difference"]
    try:
        chosen = PlanOptions(difference, options["alpha"], options["power"], options["repeats"])
        return render_plan(plan_from_rates(chosen, better, worse, rates["item_usd"]))
    except RequestError as error:
        raise click.ClickException("\n".join(map(str, error.faults))) from None


def _print(found: PlanJson, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    pilot = f"by {found['pilot_items']:,} items of the pilot, " if found["pilot_items"] is not None else ""
    metric = f"{found['metric']}: " if found["metric"] else ""
    echo(to_single_line(f"{metric}items that show a difference of {found['difference']:g}"))
    echo(f"({pilot}α {found['alpha']:g}, power {found['power']:g}, {found['repeats']} per item and model)")
    columns = ("A", "B", "items", "cost", "smallest p", "the pilot shows", "note")
    rows = [
        (
            to_single_line(pair["a"]),
            to_single_line(pair["b"]),
            "" if pair["items"] is None else f"{pair['items']:,}",
            "" if pair["cost_usd"] is None else format_usd(pair["cost_usd"]),
            format_cell(pair["smallest_p"], "p"),
            format_cell(pair["detectable_difference"], "score"),
            to_single_line(pair["note"] or ""),
        )
        for pair in found["pairs"]
    ]
    print_table(SafeConsole(), columns, rows, right=columns[2:6])
