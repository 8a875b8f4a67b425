"""`fanout evaluate` as a process, with the jobs here and on a server."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders.settings import write_providers_file
from tests.support.cli import CommandResult, run_fanout, serve_fanout, start_fanout
from tests.support.terminal import TerminalSession
from tests.support.upstream.server import Upstream

FUNCTION = "def loudness(given):\n    return sum(letter.isupper() for letter in given.text) / max(len(given.text), 1)\n"


class Workspace:
    """A folder with a configuration, an input and a store."""

    def __init__(self, folder: Path, upstream: Upstream) -> None:
        self.folder = folder
        self.config = write_providers_file(upstream.url, folder, retries={"attempts": 1})
        self.write("in.jsonl", [{"prompt": f"q{number}", "reference": "yes"} for number in range(4)])
        (folder / "own.py").write_text(FUNCTION)

    def write(self, name: str, rows: list[dict[str, Any]]) -> None:
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    async def run(self, *arguments: str, given: bytes | None = None) -> CommandResult:
        store = str(self.folder / "jobs.db")
        return await run_fanout(*arguments, "--config", str(self.config), given=given, cwd=self.folder, FANOUT_STORE=store)

    def read(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]


@pytest.fixture
def workspace(tmp_path: Path, upstream: Upstream) -> Workspace:
    return Workspace(tmp_path, upstream)


async def test_scorers_are_declared_with_the_run_by_name_by_json_and_as_a_function_of_this_folder(workspace: Workspace) -> None:
    declared = (
        "exact",
        '{"type": "regex", "pattern": "^Y", "name": "shouts"}',
        '{"type": "python", "function": "own.loudness"}',
    )
    options = [part for one in declared for part in ("--scorer", one)]
    result = await workspace.run("batch", "run", "in.jsonl", "-m", "up/say-yes", "-m", "up/say-YES", *options, "-o", "r.jsonl")

    assert result.code == 0, result.err
    scores = [{name: score["value"] for name, score in line["scores"].items()} for line in workspace.read("r.jsonl")]
    assert scores[:2] == [{"exact": 1, "shouts": 0, "python": 0}, {"exact": 0, "shouts": 1, "python": 1}]


async def test_stored_answers_are_scored_afterwards_here_and_on_a_server(workspace: Workspace, upstream: Upstream) -> None:
    await workspace.run("batch", "run", "in.jsonl", "-m", "up/say-yes")
    sent = len(upstream.requests)
    shown = await workspace.run("evaluate", "score", "last", "--scorer", "exact", "--scorer", "bleu")
    as_json = await workspace.run("evaluate", "score", "last", "--scorer", "exact", "--json")
    store = str(workspace.folder / "jobs.db")
    async with serve_fanout("--config", str(workspace.config), FANOUT_STORE=store) as address:
        remote = await workspace.run("evaluate", "score", "last", "--scorer", "length", "--json", "--server", address)
        refused = await workspace.run(
            *("evaluate", "score", "last", "--server", address),
            *("--scorer", '{"type": "python", "function": "own.loudness"}'),
        )

    assert shown.code == 0, shown.err
    assert [line.split()[:3] for line in shown.out.splitlines()[1:]] == [["bleu", "4", "0"], ["exact", "4", "0"]]
    assert [row["name"] for row in json.loads(as_json.out)["scorers"]] == ["bleu", "exact"]
    assert [row["name"] for row in json.loads(remote.out)["scorers"]] == ["bleu", "exact", "length"]
    assert (refused.code, "runs code" in refused.err) == (2, True)
    assert len(upstream.requests) == sent


async def test_a_wrong_scorer_is_refused_before_anything_is_sent(workspace: Workspace, upstream: Upstream) -> None:
    for scorer, words in (
        ("exat", "did you mean `exact`?"),
        ('{"type": ', "is not JSON"),
        ('{"type": "python", "function": "own.none"}', "cannot be loaded"),
    ):
        result = await workspace.run("batch", "run", "in.jsonl", "-m", "up/ok", "--scorer", scorer)
        assert (result.code, words in result.err) == (2, True), result.err
    nothing = await workspace.run("evaluate", "score", "last")

    assert (nothing.code, "at least one --scorer" in nothing.err) == (2, True)
    assert upstream.requests == []


async def test_a_report_is_shown_as_tables_json_csv_and_markdown_here_and_from_a_server(workspace: Workspace) -> None:
    workspace.write("in.jsonl", [{"prompt": f"q{number}", "reference": "yes"} for number in range(20)])
    run = await workspace.run("batch", "run", "in.jsonl", "-m", "up/say-yes", "-m", "up/say-no", "--scorer", "exact", "-q")
    assert run.code == 0, run.err
    shown = await workspace.run("report", "last")
    as_json, as_csv, as_markdown = [await workspace.run("report", "last", f"--{form}") for form in ("json", "csv", "markdown")]
    async with serve_fanout("--config", str(workspace.config), FANOUT_STORE=str(workspace.folder / "jobs.db")) as address:
        remote = await workspace.run("report", "last", "--json", "--server", address)
    wrong = await workspace.run("report", "last", "--cluster", "topic")

    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[1].startswith("exact: up/say-yes is best, 1 [0.8389, 1]; it is ahead of up/say-no by 1 [")
    assert "failures: a failed call counts as a score of 0" in shown.out
    assert json.loads(as_json.out)["metrics"][0]["n"] == 20
    assert json.loads(remote.out) == json.loads(as_json.out)
    assert "scores,exact,up/say-yes,,mean,1.0" in as_csv.out
    assert as_markdown.out.splitlines()[2].startswith("- **exact: up/say-yes is best")
    assert (wrong.code, wrong.err) == (2, "fanout: cluster: no row has a column `topic`\n")


async def test_pairs_are_labelled_blind_with_one_key_each_here_and_through_a_server(workspace: Workspace) -> None:
    await workspace.run("batch", "run", "in.jsonl", "-m", "up/say-yes", "-m", "up/say-no")
    first = await workspace.run("evaluate", "label", "last", given=b"1x3q")
    async with serve_fanout("--config", str(workspace.config), FANOUT_STORE=str(workspace.folder / "jobs.db")) as address:
        rest = await workspace.run("evaluate", "label", "last", "--server", address, given=b"44444")
        scores = await workspace.run("evaluate", "label", "last", "--score", "--rater", "ann", "--server", address, given=b"51")
    report = json.loads((await workspace.run("report", "last", "--json")).out)

    assert first.code == rest.code == scores.code == 0, first.err + rest.err + scores.err
    assert "up/say" not in first.out + rest.out + scores.out
    assert "2 votes; `fanout report job_" in first.out
    assert "no pair of answers to the same prompt is left that this rater has not had\n2 votes" in rest.out
    assert f" --server {address} --config {workspace.config}` shows what they say" in rest.out, "the command finds the job"
    (votes,) = report["preferences"]
    assert (votes["n"], votes["pairs"][0]["ties"], votes["pairs"][0]["both_bad"]) == (4, 3, 2)
    assert [metric["name"] for metric in report["metrics"]] == ["people"]


async def test_a_key_on_a_terminal_votes_without_return(workspace: Workspace) -> None:
    await workspace.run("batch", "run", "in.jsonl", "-m", "up/say-yes", "-m", "up/say-no")
    store, config = str(workspace.folder / "jobs.db"), str(workspace.config)
    async with TerminalSession("evaluate", "label", "last", "--config", config, FANOUT_STORE=store) as terminal:
        await terminal.wait_for("q quit")
        # Keys that are pressed before the command reads one are discarded, so each is pressed until it has worked.
        while terminal.output.count("q quit") < 2:
            terminal.type("2")
            await asyncio.sleep(0.1)
        while terminal.process.returncode is None:
            with suppress(OSError):
                terminal.type("q")
            await asyncio.sleep(0.1)

    assert terminal.process.returncode == 0
    assert re.search("[1-4] votes?; ", terminal.output)


async def test_a_gate_exits_with_its_verdict_and_a_pilot_plans_the_next_run(workspace: Workspace) -> None:
    workspace.write("in.jsonl", [{"prompt": f"q{number}", "reference": "yes"} for number in range(40)])
    models = [part for name in ("yes", "no", "Yes") for part in ("-m", f"up/say-{name}")]
    await workspace.run("batch", "run", "in.jsonl", *models, "--scorer", "exact")
    gates = [("yes", "no"), ("no", "yes"), ("Yes", "no")]
    passed, failed, undecided = [
        await workspace.run(
            "evaluate", "gate", "last", "--model", f"up/say-{a}", "--baseline", f"up/say-{b}", "--margin", "0.02"
        )
        for a, b in gates
    ]
    workspace.write("in.jsonl", [{"prompt": f"q{number}", "reference": "yes"} for number in range(42)])
    first = (await workspace.run("batch", "list", "--json")).out
    await workspace.run("batch", "run", "in.jsonl", "-m", "up/say-no", "--scorer", "exact")
    across = ("--baseline-job", json.loads(first)["data"][0]["id"])
    later = await workspace.run(
        *("evaluate", "gate", "last", "--model", "up/say-no", "--baseline", "up/say-yes", "--margin", "0.02", *across)
    )
    same = await workspace.run("evaluate", "plan", "last", "--difference", "0.1", "--model", "up/say-no", *across)
    stated = await workspace.run("evaluate", "plan", "--better", "0.2", "--worse", "0.1", "--item-usd", "0.01")

    assert [result.code for result in (passed, failed, undecided)] == [0, 1, 4]
    assert passed.out.startswith("pass: the difference is +1.0000 [")
    assert failed.out.startswith("fail: the difference is -1.0000 [")
    assert undecided.out.startswith("inconclusive: the difference is +0.0000 [")
    assert (later.code, later.out[:32]) == (1, "fail: the difference is -1.0000 "), later.err
    assert "2 rows of job_" in later.out
    assert "are left out: row 41, row 42" in later.out
    assert "every item of the pilot has the same difference" in same.out
    assert stated.out.splitlines()[-1].split()[:4] == ["A", "B", "228", "$2.28"]


async def test_a_judge_is_asked_in_a_job_of_its_own_which_a_repetition_does_not_ask_again(
    workspace: Workspace, upstream: Upstream
) -> None:
    scorer = '{"type": "judge", "model": "up/prefers-yes", "retest": 0, "name": "declared"}'
    run = await workspace.run("batch", "run", "in.jsonl", "-m", "up/say-yes", "-m", "up/say-no", "--scorer", scorer)
    sent = len(upstream.requests)
    judged = await workspace.run("evaluate", "judge", "last", "-m", "up/prefers-yes", "--pairs", "--retest", "0")
    again = await workspace.run("evaluate", "judge", "last", "-m", "up/prefers-yes", "--pairs", "--retest", "0")
    report = json.loads((await workspace.run("report", "last", "--json")).out)

    assert run.code == judged.code == again.code == 0, run.err + judged.err + again.err
    assert sent == 8 + 8
    assert sent + 4 <= len(upstream.requests) <= sent + 8, "one question for each pair, or two where both orders are asked"
    assert {judge["name"]: judge["unread"] for judge in report["judges"]} == {"declared": 0, "judge": 0}
    assert [metric["models"][0]["mean"]["value"] for metric in report["metrics"]] == [1]
    assert report["preferences"][0]["pairs"][0]["wins"] == 4


async def test_a_killed_job_that_stops_early_decides_the_same_after_its_resumption(
    workspace: Workspace, upstream: Upstream
) -> None:
    workspace.write("in.jsonl", [{"prompt": f"q{number}", "reference": "yes"} for number in range(60)])
    command = ["batch", "run", "in.jsonl", "-m", "up/say-yes-sleep-0.1", "-m", "up/say-no-sleep-0.1", "--concurrency", "2"]
    options = ["--scorer", "exact", "--until-decided", "exact", "--config", str(workspace.config)]
    store = str(workspace.folder / "jobs.db")
    async with start_fanout(*command, *options, cwd=workspace.folder, FANOUT_STORE=store) as process:
        while len(upstream.requests) < 6:
            await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
    resumed = await workspace.run("batch", "resume", "last", "--json")
    shown = await workspace.run("report", "last")

    assert resumed.code == 0, resumed.err
    job = json.loads(resumed.out)
    assert job["reason"] == "decided by exact after 7 of 60 items: up/say-yes-sleep-0.1 is better than every other model"
    assert job["progress"]["ended"] < 2 * (7 + 32)
    assert shown.out.splitlines()[1] == job["reason"]
