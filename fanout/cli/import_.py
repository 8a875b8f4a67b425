"""`fanout import`: what other evaluation programs have measured, as a job whose report is there without a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from fanout.cli.batch.backend import JobBackend
from fanout.cli.batch.location import JobsLocation, run_with_jobs, with_location
from fanout.cli.evaluation.options import with_failure_policy
from fanout.cli.options import ALL_ANSWERED
from fanout.cli.tables import echo
from fanout.core.shown_text import to_single_line
from fanout.evaluate.importing.inspect_logs import read_inspect
from fanout.evaluate.importing.lm_eval import read_lm_eval
from fanout.evaluate.importing.samples import ImportedSamples
from fanout.jobs.job import FailurePolicy

Reader = Callable[[Path, str | None, ImportedSamples], None]


@click.group(name="import", no_args_is_help=True)
def import_() -> None:
    """Take over what other evaluation programs have measured, as a job that has ended.

    Name a file for each model, all of the same tasks: its report compares them item by item, without a call.
    """


@import_.command(name="lm-eval")
@with_location
@click.argument("files", nargs=-1, required=True, metavar="[MODEL=]FILE…")
@with_failure_policy
@click.option("--name", help="A name for people.")
def lm_eval(location: JobsLocation, files: Sequence[str], failed: FailurePolicy, name: str | None) -> None:
    """Import `samples_….jsonl` of `lm_eval --log_samples`, by default named by their folders."""
    _import(location, "lm-eval", read_lm_eval, files, failed, name)


@import_.command()
@with_location
@click.argument("files", nargs=-1, required=True, metavar="[MODEL=]FILE…")
@with_failure_policy
@click.option("--name", help="A name for people.")
def inspect(location: JobsLocation, files: Sequence[str], failed: FailurePolicy, name: str | None) -> None:
    """Import `.eval` or `.json` logs of Inspect, named by their models."""
    _import(location, "inspect", read_inspect, files, failed, name)


def _import(
    location: JobsLocation, source: str, read: Reader, files: Sequence[str], failed: FailurePolicy, name: str | None
) -> None:
    async def work(jobs: JobBackend) -> int:
        imported = ImportedSamples(source)
        for file in files:
            model, equals, path = file.partition("=")
            try:
                read(Path(path if equals else file), model if equals else None, imported)
            except OSError as error:
                raise click.UsageError(f"`{path if equals else file}` cannot be read: {error.strerror or error}") from None
        names = [Path(file.partition("=")[2] or file).name for file in files]
        job_id = await jobs.evaluation.store_samples(imported, name=name, files=names, failed=failed)
        for what, count in imported.left_out.items():
            echo(to_single_line(f"not taken: {what} ({count:,} samples)"), err=True)
        models = len({sample.model for sample in imported.samples})
        items = len({sample.item for sample in imported.samples})
        echo(f"{job_id}: {models:,} models, {items:,} items; `fanout report {job_id}` compares them")
        return ALL_ANSWERED

    run_with_jobs(work, location)
