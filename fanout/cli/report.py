"""`fanout report`: which model of a job is better, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import click
from rich.console import Console

from fanout.cli.batch.backend import JobBackend, find_job
from fanout.cli.batch.location import JobsLocation, run_with_jobs, with_location
from fanout.cli.completion import complete_jobs
from fanout.cli.options import ALL_ANSWERED, print_json
from fanout.cli.output import echo
from fanout.cli.tables import SafeConsole, print_line, print_table
from fanout.core.json_text import parse
from fanout.core.shown_text import to_single_line
from fanout.core.threads import run_in_thread
from fanout.store.jobs.records import ResultFilter

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.rendering.job import JobJson
    from fanout.rendering.report import ReportJson

Output = Literal["json", "csv", "markdown"]


@click.command()
@with_location
@click.argument("job", shell_complete=complete_jobs)
@click.option("--cluster", metavar="COLUMN", help="The rows' column that groups items which hang together: a document.")
@click.option("--json", "output", flag_value="json", help="Print the report as JSON.")
@click.option("--csv", "output", flag_value="csv", help="Print every figure on a line of its own.")
@click.option("--markdown", "output", flag_value="markdown", help="Print Markdown, for a pull request.")
@click.option(
    "--html",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write figures, tables and all answers as one HTML file, which opens without a network.",
)
def report(location: JobsLocation, job: str, cluster: str | None, output: Output | None, file: Path | None) -> None:
    """Show which model of a job is better, and how sure that is.

    JOB is the id of a job, the beginning of one, or `last`.
    """
    if file is not None and output is not None:
        raise click.UsageError(f"--html writes a file and --{output} prints: choose one")

    async def work(jobs: JobBackend) -> int:
        chosen = await find_job(jobs, job)
        found = await jobs.evaluation.report(chosen, cluster)
        if file is None:
            print_report(found, output)
        else:
            await write_html(jobs, chosen, found, file)
        return ALL_ANSWERED

    run_with_jobs(work, location, is_reading=True)


async def write_html(jobs: JobBackend, job: JobJson, report: ReportJson, file: Path) -> None:
    """Write a report with all answers to a file, which takes its name only when it is whole."""
    from fanout.jobs import output_files

    with output_files.open_output(file) as write, TemporaryDirectory(prefix="fanout-") as folder:
        # By way of a file: the jobs here and those of a server are read alike, in memory that does not grow with them.
        results = Path(folder) / "results.jsonl"
        await jobs.export(job, str(results), None, ResultFilter())
        await run_in_thread("reports", _write_document, write, report, results, job["kind"] != "rows")


def _write_document(write: Callable[[bytes], object], report: ReportJson, results: Path, by_label: bool) -> None:
    from fanout.rendering.report_html.document import write_document

    with results.open("rb") as lines:
        write_document(write, report, map(parse, lines), by_label=by_label)


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
