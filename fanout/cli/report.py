"""`fanout report`: which model of a job is better, and how sure that is."""

from __future__ import annotations

from typing import Literal

import click
from rich.console import Console

from fanout.cli.batch.backend import JobBackend, find_job
from fanout.cli.batch.location import JobsLocation, run_with_jobs, with_location
from fanout.cli.completion import complete_jobs
from fanout.cli.options import ALL_ANSWERED, print_json
from fanout.cli.tables import SafeConsole, echo, print_line, print_table
from fanout.core.shown_text import to_single_line
from fanout.rendering.report import ReportJson

Output = Literal["json", "csv", "markdown"]


@click.command()
@with_location
@click.argument("job", shell_complete=complete_jobs)
@click.option("--cluster", metavar="COLUMN", help="The rows' column that groups items which hang together: a document.")
@click.option("--json", "output", flag_value="json", help="Print the report as JSON.")
@click.option("--csv", "output", flag_value="csv", help="Print every figure on a line of its own.")
@click.option("--markdown", "output", flag_value="markdown", help="Print Markdown, for a pull request.")
def report(location: JobsLocation, job: str, cluster: str | None, output: Output | None) -> None:
    """Show which model of a job is better, and how sure that is.

    JOB is the id of a job, the beginning of one, or `last`.
    """

    async def work(jobs: JobBackend) -> int:
        found = await jobs.evaluation.report(await find_job(jobs, job), cluster)
        print_report(found, output)
        return ALL_ANSWERED

    run_with_jobs(work, location)


def print_report(report: ReportJson, output: Output | None) -> None:
    """Print a report in one of its forms; by default as tables."""
    from fanout.rendering import report_tables

    if output == "json":
        print_json(report)
    elif output is not None:
        render = report_tables.render_csv if output == "csv" else report_tables.render_markdown
        echo(render(report).removesuffix("\n"))
    else:
        _print_tables(SafeConsole(), report)


def _print_tables(console: Console, report: ReportJson) -> None:
    from fanout.rendering.report_tables import format_title, list_policies, list_tables, list_verdicts

    # Labels come from files and servers: control characters in one could rewrite the terminal.
    print_line(console, to_single_line(format_title(report)))
    for verdict in list_verdicts(report):
        print_line(console, to_single_line(verdict))
    for table in list_tables(report):
        print_line(console, "")
        print_line(console, to_single_line(table.title))
        rows = [[to_single_line(cell) for cell in row] for row in table.format_rows()]
        print_table(console, list(table.columns), rows, right=table.right)
    print_line(console, "")
    for line in (*list_policies(report), *report["notes"], f"methods: {'; '.join(report['methods'])}"):
        print_line(console, to_single_line(line))
