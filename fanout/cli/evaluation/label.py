"""`fanout evaluate label`: blind votes in the terminal, one key each."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.rule import Rule

from fanout.cli.batch.backend import JobBackend, find_job
from fanout.cli.batch.location import JobsLocation, run_with_jobs, with_location
from fanout.cli.completion import complete_jobs
from fanout.cli.options import ALL_ANSWERED
from fanout.cli.tables import SafeConsole, print_line
from fanout.core.errors import RequestError
from fanout.core.json_text import JsonObject

if TYPE_CHECKING:  # a command's help needs none of them
    from fanout.rendering.votes import BallotJson
    from fanout.store.votes import BallotKind

QUIT = "q"
CHOICES: Mapping[str, tuple[str, str]] = {
    "1": ("a", "the first is better"),
    "2": ("b", "the second is better"),
    "3": ("tie", "equal"),
    "4": ("both_bad", "both bad"),
}
SCORES: Mapping[str, float] = {"1": 0.0, "2": 0.25, "3": 0.5, "4": 0.75, "5": 1.0}


@click.command()
@with_location
@click.argument("job", shell_complete=complete_jobs)
@click.option("--score", "is_score", is_flag=True, help="Score single answers from 1 to 5, instead of choosing between two.")
@click.option("--rater", help="Your name, where several people label: each is shown every pair.")
def label(location: JobsLocation, job: str, is_score: bool, rater: str | None) -> None:
    """Compare a job's answers blind, one key each; `q` ends.

    Which model gave which answer is not shown, so that you cannot learn to tell them. Votes are a ranking of their own in the
    report, and labels for judges.
    """
    kind: BallotKind = "answer" if is_score else "pair"

    async def work(jobs: JobBackend) -> int:
        found, console = await find_job(jobs, job), SafeConsole()
        votes: Counter[str] = Counter()
        while (ballot := await _draw(jobs, found["id"], kind, rater, console)) is not None:
            _show(console, ballot)
            key = _read_key(SCORES if is_score else CHOICES)
            if key == QUIT:
                break
            vote: JsonObject = {"score": SCORES[key]} if is_score else {"choice": CHOICES[key][0]}
            await jobs.evaluation.vote(ballot["id"], **vote)
            # Counted once it is stored, so that the line at the end is true after an interruption, too.
            votes[key] += 1
        total = votes.total()
        command = location.format_command("report", found["id"])
        print_line(console, f"{total} vote{'' if total == 1 else 's'}; `{command}` shows what they say")
        return ALL_ANSWERED

    run_with_jobs(work, location)


async def _draw(jobs: JobBackend, job_id: str, kind: BallotKind, rater: str | None, console: Console) -> BallotJson | None:
    """Return the next ballot; `None`, with a line that says so, where nothing is left."""
    try:
        return await jobs.evaluation.draw_ballot(job_id, kind, rater)
    except RequestError as error:
        # Nothing left is how labelling ends, not an error.
        if error.faults[0].kind != "ballots_exhausted":
            raise
        print_line(console, error.faults[0].message)
        return None


def _show(console: Console, ballot: BallotJson) -> None:
    console.print(Rule("prompt"))
    print_line(console, _to_text(ballot["prompt"]))
    if ballot["reference"] is not None:
        console.print(Rule("reference"))
        print_line(console, _to_text(ballot["reference"]))
    for number, answer in enumerate(ballot["answers"], 1):
        console.print(Rule(f"answer {number}" if len(ballot["answers"]) > 1 else "answer"))
        print_line(console, answer["text"] or "")
    console.print(Rule())
    keys = [f"{key} {meaning}" for key, (_, meaning) in CHOICES.items()]
    shown = ", ".join(keys) if ballot["kind"] == "pair" else "1 worst … 5 best"
    print_line(console, f"{shown}, {QUIT} quit")


def _to_text(value: object) -> str:
    """Return a prompt as people read it; messages one below the other."""
    if isinstance(value, list) and all(isinstance(message, dict) and "role" in message for message in value):
        return "\n".join(f"{message['role']}: {_to_text(message.get('content'))}" for message in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _read_key(allowed: Mapping[str, object]) -> str:
    """Return the next key that means something; the end of the input quits."""
    while True:
        # `getchar` opens the terminal itself; keys that are piped in would never reach it.
        key = click.getchar() if sys.stdin.isatty() else sys.stdin.read(1)
        if not key or key == QUIT or key in allowed:
            return key or QUIT
