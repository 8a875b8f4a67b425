"""`fanout replace`: whether another model can take a model's place, by the same prompts."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from fanout.cli.batch.backend import JobBackend
from fanout.cli.batch.input import JobInput, open_input
from fanout.cli.batch.location import JobsLocation, run_with_jobs, with_location
from fanout.cli.batch.options import OutputOptions
from fanout.cli.completion import complete_files, complete_models
from fanout.cli.evaluation.gate import EXIT_CODES
from fanout.cli.evaluation.judging import run_and_judge
from fanout.cli.evaluation.options import with_scorers
from fanout.cli.options import ALL_ANSWERED, SOME_FAILED, load_settings
from fanout.cli.tables import SafeConsole, print_line, print_table
from fanout.core.json_text import JsonObject, dump
from fanout.core.sampling import SAMPLING_NAMES
from fanout.core.shown_text import to_single_line
from fanout.evaluate.decisions.options import GateOptions
from fanout.rendering.figures import format_cell, format_score

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.config.settings import Settings
    from fanout.jobs.job import JobSpec
    from fanout.rendering.decisions import GateJson
    from fanout.rendering.report import ReportJson, ReportModelJson

REFUSAL, JSON_FORMAT = "refusal", "json"
ALWAYS: Sequence[JsonObject] = (
    {"type": "refusal", "name": REFUSAL},
    {"type": "json_schema", "schema": {}, "name": JSON_FORMAT},
)
"""Scorers of every replacement: refusals, and answers that are JSON."""
ORDER = ("fail", "inconclusive", "pass")
"""Of verdicts: of several the worst counts."""


@click.command()
@with_location
@click.argument("model", shell_complete=complete_models)
@click.argument("path", metavar="[PROMPTS]", required=False, shell_complete=complete_files)
@click.option(
    "--to",
    "candidates",
    multiple=True,
    help="A candidate; default: the successor that the vendor names.",
    shell_complete=complete_models,
)
@with_scorers
@click.option("--margin", type=click.FloatRange(min=0), default=0.05, show_default=True, help="How much worse it may be.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=200, show_default=True, help="Prompts taken from the history.")
@click.option("--max-tokens", type=click.IntRange(1), help="Of every answer; default: as each prompt has it.")
@click.option("--max-cost", type=click.FloatRange(0, min_open=True), metavar="USD", help="Stop before it costs more.")
def replace(
    location: JobsLocation,
    model: str,
    path: str | None,
    candidates: Sequence[str],
    scorers: Sequence[JsonObject],
    margin: float,
    limit: int,
    max_tokens: int | None,
    max_cost: float | None,
) -> None:
    """Tell whether another model can take a model's place.

    Compares MODEL with candidates by the same prompts: quality, refusals, broken formats, cost and latency.

    PROMPTS is a file as for `fanout batch run`. Without it the prompts are those that MODEL has answered before, from the
    history (FANOUT_HISTORY=full). Exits with 0 if every candidate passes, 1 if one fails, 4 if the prompts do not tell.
    """
    from fanout.jobs.job import JobSpec

    settings = load_settings(location.config_file, location.env_file)
    chosen = tuple(candidates) or _find_successor(settings, model)
    with ExitStack() as stack:
        if path is None:
            if location.server:
                raise click.UsageError("the history is that of this configuration: name a file of PROMPTS with --server")
            written = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".jsonl"))
            lines = asyncio.run(_read_history(settings, model, limit))
            if not lines:
                sentence = "set FANOUT_HISTORY=full to keep prompts from now on, or name a file of PROMPTS"
                raise click.ClickException(f"the history has no prompt that `{model}` has answered; {sentence}")
            written.write(b"".join(line + b"\n" for line in lines))
            written.flush()
            path = written.name
        source = stack.enter_context(open_input(path, None))
        parameters = {} if max_tokens is None else {"max_tokens": max_tokens}
        spec = JobSpec(
            models=tuple({"model": name} for name in (model, *chosen)),
            parameters=parameters,
            scorers=(*scorers, *ALWAYS),
            max_cost_usd=max_cost,
            name=f"replace {model}",
        )

        async def work(jobs: JobBackend) -> int:
            return await _compare(jobs, spec, source, location, margin)

        run_with_jobs(work, location)


def _find_successor(settings: Settings, model: str) -> tuple[str, ...]:
    """Return the successor that the catalogue names; raise `ClickException` where it names none."""
    from fanout.config.catalogue import Catalogue

    catalogue = Catalogue(settings)
    found = catalogue.find(model)
    if found is None:
        raise click.ClickException(catalogue.refuse_unknown(model).message)
    if found.row is None or found.row.successor is None:
        raise click.UsageError(f"the catalogue knows no successor of `{model}`: name candidates with --to")
    return (found.row.successor,)


async def _read_history(settings: Settings, model: str, limit: int) -> list[bytes]:
    """Return the prompts that a model has answered before as rows, the newest first, each once."""
    from fanout.store.history.queries import ComparisonFilter
    from fanout.store.opening import OFF, open_store

    store = settings.environment.store
    async with open_store(store.get_secret_value() if store else OFF, is_reading=True) as opened:
        if opened is None:
            return []
        rows: dict[bytes, None] = {}
        found = await opened.history.list_comparisons(ComparisonFilter(model=model, limit=limit))
        for one in found:
            stored = await opened.history.find(one.comparison.id)
            if stored and stored.comparison.request:
                rows |= {dump(row): None for row in _list_rows(stored.comparison.request)}
    return list(rows)[:limit]


def _list_rows(request: str) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of prompts that a stored request makes."""
    try:
        body = json.loads(request)
    except (ValueError, RecursionError):  # broken text, kept as it came
        return
    if not isinstance(body, Mapping):
        return
    given = {**(body.get("model_parameters") or {}), **body}
    kept = {name: given[name] for name in SAMPLING_NAMES if name != "n" and given.get(name) is not None}
    if isinstance(body.get("system"), str):
        kept["system"] = body["system"]
    prompts = body.get("prompt")
    if isinstance(body.get("messages"), list):
        yield {**kept, "messages": body["messages"]}
    for prompt in prompts if isinstance(prompts, list) else [prompts]:
        if isinstance(prompt, str) and prompt:
            yield {**kept, "prompt": prompt}


async def _compare(jobs: JobBackend, spec: JobSpec, source: JobInput, location: JobsLocation, margin: float) -> int:
    job = await jobs.create(spec, source)
    code = await run_and_judge(jobs, job, location, OutputOptions((), as_json=False, quiet=False))
    if code not in (ALL_ANSWERED, SOME_FAILED):
        return code
    report = await jobs.evaluation.report(job)
    console, verdicts = SafeConsole(), []
    old, *new = report["models"]
    for candidate in new:
        gates = [
            await jobs.evaluation.gate(job, GateOptions(candidate["model"], old["model"], margin, name))
            for name in _list_gated_metrics(report, old["model"], candidate["model"])
        ]
        verdict = min((gate["verdict"] for gate in gates), key=ORDER.index, default="fail")  # it has answered nothing
        verdicts.append(verdict)
        _print(console, report, old, candidate, gates, verdict)
    print_line(console, "")
    print_line(console, f"`{location.format_command('report', job['id'])}` has every figure, and the methods")
    sys.stdout.flush()
    return EXIT_CODES[min(verdicts, key=ORDER.index)]


def _list_gated_metrics(report: ReportJson, old: str, new: str) -> list[str]:
    """Return the metrics that decide: those whose scores both have; formats only where the old model answers in JSON."""
    found = []
    for metric in report["metrics"]:
        means = {model["model"]: model["mean"]["value"] for model in metric["models"]}
        is_about_json = metric["name"] != JSON_FORMAT or (means.get(old) or 0) > 0
        if means.get(old) is not None and means.get(new) is not None and metric["is_bounded"] and is_about_json:
            found.append(metric["name"])
    return found


def _print(
    console: Console,
    report: ReportJson,
    old: ReportModelJson,
    new: ReportModelJson,
    gates: Sequence[GateJson],
    verdict: str,
) -> None:
    print_line(console, "")
    print_line(console, to_single_line(f"{new['model']} in place of {old['model']}: {verdict}"))
    means = {metric["name"]: {one["model"]: one["mean"]["value"] for one in metric["models"]} for metric in report["metrics"]}
    rows = [
        (
            to_single_line(gate["metric"]),
            *(format_cell(means[gate["metric"]].get(name), "score") for name in (old["model"], new["model"])),
            _format_difference(gate),
            gate["verdict"],
        )
        for gate in gates
    ]
    rows += [
        (title, *(format_cell(value, kind) for value in values), "", "")  # type: ignore[arg-type]
        for title, kind, values in (
            ("$ per 1,000 prompts", "usd", [one["cost_per_1000_items_usd"]["value"] for one in (old, new)]),
            ("attempt, median", "ms", [one["call_ms"]["p50"] for one in (old, new)]),
            ("attempt, p95", "ms", [one["call_ms"]["p95"] for one in (old, new)]),
            ("failed calls", "count", [sum(one["failures"].values()) for one in (old, new)]),
            ("filtered", "count", [one["failures"].get("content_filter", 0) for one in (old, new)]),
        )
    ]
    print_table(console, ("", "old", "new", "new - old, better is +", "verdict"), rows, right=("old", "new"))


def _format_difference(gate: GateJson) -> str:
    estimate = gate["difference"]
    if estimate["value"] is None:
        return ""
    if estimate["low"] is None or estimate["high"] is None:
        return f"{format_score(estimate['value'])} ({estimate['note'] or 'no interval'})"
    return f"{estimate['value']:+.3f} [{estimate['low']:+.3f}, {estimate['high']:+.3f}]"
