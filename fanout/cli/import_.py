"""`fanout import`: what other evaluation programs have measured, as a job whose report is there without a call."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fanout.cli.batch.input import open_input
from fanout.cli.batch.location import JobsLocation, run_with_jobs, with_location
from fanout.cli.batch.options import OutputOptions
from fanout.cli.completion import complete_files, complete_models
from fanout.cli.evaluation.judging import run_and_judge
from fanout.cli.evaluation.options import with_failure_policy
from fanout.cli.options import ALL_ANSWERED
from fanout.cli.output import echo
from fanout.core.errors import RequestError
from fanout.core.json_text import JsonObject, dump
from fanout.core.shown_text import to_single_line
from fanout.evaluate.importing.inspect_logs import read_inspect
from fanout.evaluate.importing.lm_eval import read_lm_eval
from fanout.evaluate.importing.promptfoo import read_promptfoo
from fanout.evaluate.importing.samples import ImportedSamples

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.cli.batch.backend import JobBackend
    from fanout.store.jobs.records import FailurePolicy

Reader = Callable[[Path, str | None, ImportedSamples], None]


@click.group(name="import", no_args_is_help=True)
def import_() -> None:
    """Take over what other evaluation programs have measured, as a job that has ended.

    Name a file for each model, all of the same tasks: its report compares them item by item, without a call.
    """


@import_.command(name="lm-eval")
@with_location
@click.argument("files", nargs=-1, required=True, metavar="[MODEL=]FILE…", shell_complete=complete_files)
@with_failure_policy
@click.option("--name", help="A name for people.")
def lm_eval(location: JobsLocation, files: Sequence[str], failed: FailurePolicy, name: str | None) -> None:
    """Import `samples_….jsonl` of `lm_eval --log_samples`, by default named by their folders."""
    _import(location, "lm-eval", read_lm_eval, files, failed, name)


@import_.command()
@with_location
@click.argument("files", nargs=-1, required=True, metavar="[MODEL=]FILE…", shell_complete=complete_files)
@with_failure_policy
@click.option("--name", help="A name for people.")
def inspect(location: JobsLocation, files: Sequence[str], failed: FailurePolicy, name: str | None) -> None:
    """Import `.eval` or `.json` logs of Inspect, named by their models."""
    _import(location, "inspect", read_inspect, files, failed, name)


@import_.command()
@with_location
@click.argument("config", type=click.Path(path_type=Path), metavar="CONFIG")
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    help="A model to ask, instead of those of the configuration.",
    shell_complete=complete_models,
)
@click.option(
    "--judge", help="The model for `llm-rubric` assertions; without it they are not taken.", shell_complete=complete_models
)
@with_failure_policy
@click.option("--max-cost", type=click.FloatRange(0, min_open=True), metavar="USD", help="Stop before it costs more.")
@click.option("--name", help="A name for people.")
def promptfoo(
    location: JobsLocation,
    config: Path,
    models: Sequence[str],
    judge: str | None,
    failed: FailurePolicy,
    max_cost: float | None,
    name: str | None,
) -> None:
    """Run the prompts and tests of a promptfoo configuration, and score its assertions.

    Every assertion or option that is not taken is named. A row passes as in promptfoo: if all its assertions hold.
    """
    try:
        found = read_promptfoo(config)
    except OSError as error:
        raise click.UsageError(f"`{error.filename or config}` cannot be read: {error.strerror or error}") from None
    except RequestError as error:
        raise click.ClickException("\n".join(map(str, error.faults))) from None
    if found.has_rubrics and judge is None:
        found.not_taken["assertion `llm-rubric`, which needs --judge MODEL"] += sum("rubric" in row for row in found.rows)
    for what, count in found.not_taken.items():
        echo(to_single_line(f"not taken: {what} ({count:,})"), err=True)
    chosen = [{"model": model} for model in models] or found.models
    if not chosen:
        raise click.UsageError("none of the configuration's providers is known here: name models with -m")
    scorers: list[JsonObject] = [{"type": "assertions"}]
    if found.has_rubrics and judge is not None:
        scorers.append({"type": "judge", "model": judge, "rubric_column": "rubric", "name": "llm-rubric"})
    from fanout.jobs.job import JobSpec

    spec = JobSpec(models=tuple(chosen), scorers=tuple(scorers), failed=failed, max_cost_usd=max_cost, name=name or config.stem)
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as written:
        written.write(b"".join(dump(row) + b"\n" for row in found.rows))
        written.flush()
        with open_input(written.name, None) as source:

            async def work(jobs: JobBackend) -> int:
                job = await jobs.create(spec, source)
                code = await run_and_judge(jobs, job, location, OutputOptions((), as_json=False, quiet=False))
                for metric in (await jobs.evaluation.report(job))["metrics"]:
                    for model in metric["models"]:
                        mean = model["mean"]
                        passed = "" if mean["value"] is None else f"{mean['value'] * mean['n']:g} of {mean['n']:,} pass"
                        echo(to_single_line(f"{metric['name']}: {model['model']}: {passed}"))
                return code

            run_with_jobs(work, location)


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
        command = location.format_command("report", job_id)
        echo(f"{job_id}: {models:,} model{'' if models == 1 else 's'}, {items:,} items; `{command}` compares them")
        return ALL_ANSWERED

    run_with_jobs(work, location)
