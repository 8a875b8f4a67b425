"""`fanout batch` as a process: its output, its refusals, how it stops and continues."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import signal
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from click import ClickException, UsageError

from fanout.cli.batch.backend import find_job
from fanout.cli.batch.input import open_input
from fanout.cli.batch.local_jobs import LocalJobs, open_local_jobs
from fanout.cli.batch.remote_jobs import open_remote_jobs
from fanout.cli.main import main
from fanout.config.settings import load_settings
from fanout.core.errors import ConfigError, RequestError
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.jobs.job import JobSpec
from fanout.jobs.manager import open_job_manager
from fanout.rendering.job import JobJson
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import ResultFilter
from fanout.store.opening import open_store
from tests.support.batch_apis import KEY, open_batch_apis
from tests.support.builders.settings import write_providers_file
from tests.support.cli import PATIENCE_S, CommandResult, Process, run_fanout, serve_fanout, start_fanout
from tests.support.server import serve as in_process
from tests.support.terminal import TerminalSession
from tests.support.upstream.server import Upstream

ID = re.compile(r"job_[0-9a-f]{32}")
LINE: dict[str, Any] = {
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "up/ok", "messages": [{"role": "user", "content": "hi"}]},
}
"""A line of an OpenAI batch file, without its id."""


class Workspace:
    """A folder with a configuration, an input and a store, in which `fanout batch` runs."""

    def __init__(self, folder: Path, upstream: Upstream, **row: Any) -> None:
        self.folder, self._upstream = folder, upstream
        row = {"retries": {"attempts": 2, "max_delay_s": 0.02}, **row}
        self.config = write_providers_file(upstream.url, folder, **row)
        self.input = self.write("in.jsonl", [{"prompt": f"q{number}"} for number in range(5)])
        self.store = str(folder / "jobs.db")

    def write(self, name: str, rows: Sequence[Any]) -> str:
        path = self.folder / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return str(path)

    async def run(self, verb: str, *arguments: str, given: bytes | None = None, **variables: str) -> CommandResult:
        options = ["--config", str(self.config)]
        variables = {"FANOUT_STORE": self.store, **variables}
        return await run_fanout("batch", verb, *arguments, *options, given=given, cwd=self.folder, **variables)

    def start(self, verb: str, *arguments: str) -> Any:
        options = ["--config", str(self.config)]
        return start_fanout("batch", verb, *arguments, *options, cwd=self.folder, FANOUT_STORE=self.store)

    @asynccontextmanager
    async def open_jobs(self) -> AsyncGenerator[LocalJobs]:
        """Open its jobs in this process."""
        settings = load_settings(self.config, {"HOME": str(self.folder)})
        async with open_store(self.store) as opened, open_dispatcher(settings) as dispatcher:
            assert opened
            store = JobStore(opened.database)
            async with open_job_manager(store, dispatcher) as manager:
                yield LocalJobs(manager, store, dispatcher, opened.database.give_up_after)

    async def get_last_job(self) -> JobJson:
        async with self.open_jobs() as jobs:
            return await find_job(jobs, "last")

    async def make_job(self, *models: str, rows: str = "in.jsonl", ended: bool = False, name: str | None = None) -> JobJson:
        """Create a job, and run it if it is to have `ended`."""
        async with self.open_jobs() as jobs:
            with open_input(str(self.folder / rows), None) as source:
                job = await jobs.create(JobSpec(models=tuple({"model": model} for model in models), name=name), source)
            if ended:
                async for seen in jobs.run(job):
                    job = seen.job
            return job

    def read_records(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]


@pytest.fixture
def workspace(tmp_path: Path, upstream: Upstream) -> Workspace:
    return Workspace(tmp_path, upstream)


async def wait_for_exit(process: Process) -> tuple[int | None, str]:
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_results_are_written_in_each_format(workspace: Workspace, upstream: Upstream) -> None:
    outputs = [part for name in ("r.jsonl", "r.csv", "r.parquet") for part in ("-o", name)]

    result = await workspace.run("run", "in.jsonl", "-m", "up/ok", "-m", "up/say-yes", "--repeats", "2", *outputs)

    assert result.code == 0, result.err
    lines = workspace.read_records("r.jsonl")
    assert [(line["item"], line["entry"], line["repeat"]) for line in lines] == [
        (item, entry, repeat) for item in range(5) for entry in (0, 1) for repeat in (0, 1)
    ]
    assert {(line["label"], line["text"]) for line in lines} == {("up/ok", "This is ok."), ("up/say-yes", "yes")}
    with (workspace.folder / "r.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 20
    assert pyarrow.parquet.read_table(workspace.folder / "r.parquet").column("text").to_pylist() == [
        line["text"] for line in lines
    ]
    assert len(upstream.requests) == 20
    assert re.search(r"^up/ok +10  0 +100 +40 ", result.out, re.M)
    assert ": done after " in result.out
    assert "results: r.jsonl, r.csv, r.parquet" in result.out


async def test_one_absurd_figure_of_a_usage_is_unknown_and_ruins_no_results(workspace: Workspace) -> None:
    """2^70 fits no column; the other answers stand beside it."""
    models = (part for name in (f"up/input-{2**70}", "up/input-7") for part in ("-m", name))
    outputs = [part for name in ("r.jsonl", "r.csv", "r.parquet") for part in ("-o", name)]
    result = await workspace.run("run", "in.jsonl", *models, *outputs, "-q")

    assert result.code == 0, result.err
    found = pyarrow.parquet.read_table(workspace.folder / "r.parquet").column("prompt_tokens").to_pylist()
    assert sorted(found, key=str) == [7] * 5 + [None] * 5
    assert [record["prompt_tokens"] for record in workspace.read_records("r.jsonl")] == found
    assert [group["unknown_usage"] for group in (await workspace.get_last_job())["counts"]] == [5, 0]


async def test_failures_are_counted_by_kind_and_can_be_retried(workspace: Workspace, upstream: Upstream) -> None:
    result = await workspace.run("run", "in.jsonl", "-m", "up/ok", "-m", "up/400", "-m", "up/fail-10-then-ok")
    job = ID.search(result.out)
    assert job
    assert result.code == 1
    assert "10 failed (bad_request 5, server 5)" in result.out
    assert f"fanout batch retry {job[0]} --config {workspace.config}" in result.out

    nothing = await workspace.run("retry", "last", "--kind", "timeout")
    again = await workspace.run("retry", job[0][:8], "--kind", "server", "-o", "-", "--quiet")

    assert (nothing.code, nothing.out) == (1, "")
    assert "there are no failures of that kind" in nothing.err
    assert again.code == 1
    assert again.err == ""
    ends = [(record["label"], record["error_kind"]) for record in map(json.loads, again.out.splitlines())]
    assert sorted(set(ends), key=str) == [("up/400", "bad_request"), ("up/fail-10-then-ok", None), ("up/ok", None)]
    assert len(upstream.requests_for("400")) == 5


async def test_bad_rows_are_listed_in_a_table_and_nothing_is_sent(workspace: Workspace, upstream: Upstream) -> None:
    rows = ['{"prompt": "fine"}', '{"promt": "hi"}', "not JSON", '{"prompt": "hi", "temperature": 9}']
    workspace.write("bad.jsonl", rows)

    result = await workspace.run("run", "bad.jsonl", "-m", "up/ok")

    assert (result.code, result.out) == (2, "")
    assert re.search(r"^ +2  promt +.*did you mean `prompt`", result.err, re.M)
    assert re.search(r"^ +3 .*JSON", result.err, re.M)
    assert re.search(r"^ +4  temperature +9 is not allowed", result.err, re.M)
    assert result.err.splitlines()[-1] == "fanout: 3 bad rows; nothing was sent"
    assert upstream.requests == []
    async with workspace.open_jobs() as jobs:
        assert await jobs.list_jobs(9) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["in.jsonl", "-o", "r.xlsx"], "`r.xlsx` has no known ending"),
        (["in.jsonl", "-o", "nowhere/r.csv"], "there is no folder `nowhere`"),
        (["in.jsonl", "-o", "in.jsonl"], "`in.jsonl` is the input"),
        (["in.jsonl", "-o", "r.csv", "-o", "./r.csv"], "-o names one file twice"),
        (["in.jsonl", "-o", "-", "--json"], "use one of them"),
        (["absent.jsonl"], "`absent.jsonl` cannot be read: No such file or directory"),
        (["."], "has no known ending"),
        ([".", "--format", "csv"], "`.` cannot be read: Is a directory"),
        (["in.xml"], "in.xml"),
        (["in.jsonl", "--format", "xml"], "`xml` is not allowed: jsonl, csv, tsv, txt, parquet"),
        (["in.jsonl", "--deadline", "soon"], "`soon` is not allowed: `2h`"),
        (["in.jsonl", "--deadline", "2020-01-01T00:00"], "has passed"),
        (["in.jsonl", "--template", "@absent.txt"], "`absent.txt` cannot be read"),
        (["in.jsonl", "--label", "x"], "`x` is not allowed: NAME=value"),
        (["in.jsonl", "--repeats", "0"], "--repeats"),
        (["in.jsonl", "--max-cost", "0"], "--max-cost"),
        (["lines.jsonl", "-m", "up/ok", "--max-tokens", "3"], "leave out --model, --max-tokens"),
    ],
)
def test_wrong_usage_is_reported_in_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "hi"}\n')
    (tmp_path / "lines.jsonl").write_text(json.dumps({"custom_id": "a", **LINE}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fanout", "batch", "run", *arguments])

    with pytest.raises(SystemExit) as end:
        main()

    result = capsys.readouterr()
    assert (end.value.code, result.out) == (2, "")
    assert sentence in result.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-m", "nope"], "unknown model `nope`"),
        (["-m", "up/ok", "--max-cost", "1"], "max_cost_usd: cannot be enforced: the price of `up/ok` is unknown"),
    ],
)
async def test_a_job_that_cannot_run_is_refused_before_anything_is_sent(
    workspace: Workspace, upstream: Upstream, arguments: list[str], sentence: str
) -> None:
    result = await workspace.run("run", "in.jsonl", *arguments)

    assert (result.code, result.out) == (2, "")
    assert sentence in result.err
    assert upstream.requests == []


@pytest.mark.parametrize("store", ["off", "sqlite://", ":memory:"])
async def test_a_job_needs_a_store_that_outlives_the_command(store: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"FANOUT_STORE: is .*outlives the command; name a file"):
        async with open_local_jobs(load_settings(None, {"HOME": str(tmp_path), "FANOUT_STORE": store})):
            pass


async def test_a_dry_run_needs_no_key_yet_and_a_run_does(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a\nb\n")
    run = ["batch", "run", str(tmp_path / "in.txt"), "-m", "gpt-6-luna", "--max-tokens", "20", "--max-cost", "1"]
    dry = await run_fanout(*run, "--dry-run")
    real = await run_fanout(*run, FANOUT_STORE=str(tmp_path / "jobs.db"))

    sentence = "`gpt-6-luna` needs `OPENAI_API_KEY`; `fanout keys set openai` sets it"
    assert (dry.code, dry.err) == (0, "")
    assert "2 rows, 2 calls; nothing was sent" in dry.out
    assert sentence in dry.out
    assert "cost: about $" in dry.out
    assert (real.code, real.err) == (2, f"fanout: models[0]: {sentence}\n")


async def test_a_job_takes_patterns_and_commas_and_by_default_the_users_own_models(providers_json: str, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a\n")
    run = ["batch", "run", str(tmp_path / "in.txt"), "--max-tokens", "2", "--dry-run", "--json"]
    named = await run_fanout(*run, "--config", providers_json, "-m", "o?,up/say-two")
    file = json.loads(Path(providers_json).read_text())
    (tmp_path / "own.json").write_text(json.dumps({**file, "sets": {"mine": ["up/say-one"]}}))
    own = await run_fanout(*run, "--config", str(tmp_path / "own.json"))

    assert [model["model"] for model in json.loads(named.out)["models"]] == ["ok", "up/say-two"]
    assert [model["model"] for model in json.loads(own.out)["models"]] == ["up/say-one"]


async def test_a_job_through_a_batch_api_is_estimated_run_and_exported(tmp_path: Path) -> None:
    async with open_batch_apis() as apis:
        price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
        models = {"m": {"provider": "openai", "id": "m", "kind": "chat", "price": price}}
        rows = {"extends": False, "providers": {"openai": apis.row("openai")}, "models": models}
        (tmp_path / "providers.json").write_text(json.dumps(rows))
        (tmp_path / "in.txt").write_text("one\ntwo\n")
        variables: dict[str, Any] = {"VENDOR_KEY": KEY, "FANOUT_STORE": str(tmp_path / "fanout.db")}
        run = ["batch", "run", str(tmp_path / "in.txt"), "-m", "m", "--config", str(tmp_path / "providers.json")]
        dry = await run_fanout(*run, "--via", "batch", "--dry-run", **variables)
        done = await run_fanout(*run, "--via", "batch", "-o", str(tmp_path / "out.csv"), **variables)
        wrong = await run_fanout(*run, "--live-rest", **variables)

    assert "time: as long as the providers' own batches take, up to a day" in dry.out
    assert (dry.code, done.code, wrong.code) == (0, 0, 2)
    assert [row["via"] for row in csv.DictReader((tmp_path / "out.csv").read_text().splitlines())] == ["batch", "batch"]
    assert "live_rest: is for jobs whose `via` is `batch`" in wrong.err


async def test_a_dry_run_shows_calls_tokens_cost_and_time(tmp_path: Path, upstream: Upstream) -> None:
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}
    more = {"models": {"dear": {"provider": "up", "id": "ok", "kind": "chat", "price": price}}}
    workspace = Workspace(tmp_path, upstream, more=more, limits={"requests_per_minute": 5})
    arguments = ["in.jsonl", "-m", "dear", "--repeats", "3", "--max-tokens", "100", "--dry-run"]

    result = await workspace.run("run", *arguments, "--max-cost", "0.001", FANOUT_STORE="off")
    unknown = await workspace.run("run", "in.jsonl", "-m", "up/ok", "--dry-run", "--json")

    assert result.code == 0, result.err
    assert re.search(r"^dear +15 +~\d+ +≤ 1,500  ~\$0\.015\d*$", result.out, re.M)
    assert "5 rows, 15 calls; nothing was sent" in result.out
    assert "more than --max-cost 0.001" in result.out
    assert "time: at least 2 min under the configured limits" in result.out
    estimate = json.loads(unknown.out)
    assert (estimate["calls"], estimate["cost_usd"], estimate["models"][0]["guessed"]) == (5, None, True)
    assert upstream.requests == []


async def test_a_template_and_parameters_are_sent_from_a_table_on_standard_input(
    workspace: Workspace, upstream: Upstream
) -> None:
    (workspace.folder / "ask.txt").write_bytes(b"\xef\xbb\xbfSay {{word}}.\r\n")
    job = ["-", "--format", "csv", "-m", "up/ok", "--template", "@ask.txt"]
    arguments = [*job, "--system", "be brief", "--temperature", "0.5"]

    result = await workspace.run(
        "run",
        *arguments,
        "--name",
        "words",
        "--label",
        "team=a",
        "--deadline",
        "1h",
        "--json",
        given=b"\xef\xbb\xbfword\r\nyes\r\nno\r\n",
    )

    assert result.code == 0, result.err
    assert [
        request.body["messages"] for request in sorted(upstream.requests, key=lambda one: one.body["messages"][1]["content"])
    ] == [[{"role": "system", "content": "be brief"}, {"role": "user", "content": f"Say {word}."}] for word in ("no", "yes")]
    assert {request.body["temperature"] for request in upstream.requests} == {0.5}
    job = json.loads(result.out)
    assert (job["name"], job["metadata"], job["state"], job["items"]) == ("words", {"team": "a"}, "done", 2)
    assert job["input"]["name"] == "stdin"
    assert 3_500 < datetime.fromisoformat(job["deadline"]).timestamp() - time.time() <= 3_600
    assert len(job["input"]["sha256"]) == 64


async def test_lines_of_an_openai_batch_file_name_their_own_models(workspace: Workspace, upstream: Upstream) -> None:
    workspace.write("lines.jsonl", [{"custom_id": "a", **LINE}, {"custom_id": "b", **LINE}])

    result = await workspace.run("run", "lines.jsonl", "-o", "r.jsonl")

    assert result.code == 0, result.err
    assert [(line["custom_id"], line["text"]) for line in workspace.read_records("r.jsonl")] == [
        (custom_id, "This is ok.") for custom_id in ("a", "b")
    ]
    assert len(upstream.requests) == 2


async def test_ctrl_c_stops_cleanly_and_prints_the_command_that_continues(workspace: Workspace, upstream: Upstream) -> None:
    workspace.write("many.jsonl", [{"prompt": f"q{number}"} for number in range(60)])
    options = ["many.jsonl", "-m", "up/sleep-0.1", "--concurrency", "3"]
    async with workspace.start("run", *options, "-o", "r.jsonl") as process:
        await upstream.wait_for_requests(6, timeout_s=PATIENCE_S)
        process.send_signal(signal.SIGINT)
        code, output = await wait_for_exit(process)

    assert code == 130, output
    printed = re.search(r"^to continue: fanout (batch resume .*)$", output, re.M)
    assert printed, output
    done = len(upstream.requests)
    assert len(workspace.read_records("r.jsonl")) == done < 60  # the calls in flight were waited for
    assert upstream.abandoned == []

    result = await run_fanout(*printed[1].split(), FANOUT_STORE=workspace.store, cwd=workspace.folder)

    assert result.code == 0, result.err
    assert len(workspace.read_records("r.jsonl")) == len(upstream.requests) == 60


async def test_a_second_ctrl_c_aborts_the_calls_in_flight(workspace: Workspace, upstream: Upstream) -> None:
    async with workspace.start("run", "in.jsonl", "-m", "up/hang") as process:
        await upstream.wait_for_requests(4, timeout_s=PATIENCE_S)
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.3)
        assert process.returncode is None
        process.send_signal(signal.SIGINT)
        code, output = await wait_for_exit(process)

    assert code == 130
    assert "to continue: fanout batch resume job_" in output
    assert (await workspace.get_last_job())["state"] == "stopped"


async def test_calls_in_flight_are_aborted_after_the_grace_period(workspace: Workspace, upstream: Upstream) -> None:
    async with start_fanout(
        *("batch", "run", "in.jsonl", "-m", "up/hang", "--config", str(workspace.config)),
        cwd=workspace.folder,
        FANOUT_STORE=workspace.store,
        FANOUT_GRACE_S="0.3",
    ) as process:
        await upstream.wait_for_requests(4, timeout_s=PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        code, output = await wait_for_exit(process)

    assert code == 143
    assert "to continue: fanout batch resume job_" in output
    assert (await workspace.get_last_job())["progress"]["ended"] == 0


async def test_resume_after_sigkill_makes_only_the_calls_without_a_record(workspace: Workspace, upstream: Upstream) -> None:
    workspace.write("many.jsonl", [{"prompt": f"q{number}"} for number in range(40)])
    async with workspace.start("run", "many.jsonl", "-m", "up/sleep-0.05", "--concurrency", "4") as process:
        await upstream.wait_for_requests(12, timeout_s=PATIENCE_S)
        process.kill()
        await wait_for_exit(process)
    cut_off = await workspace.get_last_job()
    watched = await workspace.run("status", "last", "--watch")
    listed = [await workspace.run("list", "--state", state) for state in ("running", "stopped")]

    result = await workspace.run("resume", "last", "-o", "r.jsonl")

    assert watched.code == 3
    assert [cut_off["id"] in found.out for found in listed] == [False, True]

    assert (cut_off["state"], cut_off["reason"]) == ("stopped", "its process was killed")
    assert cut_off["progress"]["left"] > 0
    assert result.code == 0, result.err
    records = workspace.read_records("r.jsonl")
    assert len({record["item"] for record in records}) == len(records) == 40
    assert 40 <= len(upstream.requests) <= 44


@pytest.mark.parametrize(("model", "code"), [("up/ok", 0), ("up/400", 1)])
async def test_a_last_resume_of_a_done_job_exits_as_the_job_did_and_writes_its_results(
    workspace: Workspace, upstream: Upstream, model: str, code: int
) -> None:
    job = await workspace.make_job(model, ended=True)
    sent = len(upstream.requests)

    result = await workspace.run("resume", "last", "in.jsonl", "-o", "r.jsonl")

    assert (result.code, len(upstream.requests)) == (code, sent)
    assert f"{job['id']}: done already; " in result.out
    assert len(workspace.read_records("r.jsonl")) == 5


async def test_of_five_resumes_at_once_one_runs_the_job_and_four_name_it(workspace: Workspace, upstream: Upstream) -> None:
    job = await workspace.make_job("up/hang")
    async with AsyncExitStack() as stack:
        started = [await stack.enter_async_context(workspace.start("resume", "last")) for _ in range(5)]
        waiting = {asyncio.create_task(wait_for_exit(process)): process for process in started}
        ended: set[asyncio.Task[tuple[int | None, str]]] = set()
        async with asyncio.timeout(PATIENCE_S):
            while len(ended) < 4:
                ended, _ = await asyncio.wait(waiting, timeout=0.05)
        await upstream.wait_for_requests(4, timeout_s=PATIENCE_S)
        (runner,) = (process for task, process in waiting.items() if task not in ended)
        runner.kill()
        await asyncio.wait(waiting)

    assert len(upstream.requests) == 4  # the calls that a job begins with
    for task in ended:
        code, output = task.result()
        assert code == 3, output
        assert f"fanout: {job['id']} is unfinished: another process runs this job now\n" in output
        assert re.search(rf"^to continue: fanout batch status {job['id']} .*--watch$", output, re.M)


async def test_another_input_is_refused_with_its_differences_unless_the_job_is_forked(
    workspace: Workspace, upstream: Upstream
) -> None:
    job = await workspace.make_job("up/ok")
    rows = [{"prompt": f"q{number}"} for number in range(6)]
    workspace.write("other.jsonl", [*rows[:2], {"prompt": "changed"}, *rows[3:]])

    refused = await workspace.run("resume", "last", "other.jsonl")
    forked = await workspace.run("resume", "last", "other.jsonl", "--fork", "--json")

    assert refused.code == 2
    assert "input: is not what the job was made of: 1 row differs, first on line 3; 1 row more" in refused.err
    assert "`--fork` asks everything again" in refused.err
    assert forked.code == 0, forked.err
    made = json.loads(forked.out)
    assert (made["items"], made["progress"]["answered"], made["forked_from"]) == (6, 6, job["id"])
    assert len(upstream.requests) == 6


async def test_an_input_with_the_same_rows_in_another_format_is_accepted(workspace: Workspace, upstream: Upstream) -> None:
    job = await workspace.make_job("up/ok")
    (workspace.folder / "same.csv").write_text("prompt\n" + "".join(f"q{number}\n" for number in range(5)))
    (workspace.folder / "less.csv").write_text("prompt\nq0\n")

    async with workspace.open_jobs() as jobs:
        with open_input(str(workspace.folder / "same.csv"), None) as source:
            assert (await jobs.resume(job, {}, source, fork=False))["state"] == "queued"
        with open_input(str(workspace.folder / "less.csv"), None) as source, pytest.raises(RequestError, match="4 rows fewer"):
            await jobs.resume(job, {}, source, fork=False)


async def test_a_changed_configuration_is_refused_with_its_differences_unless_the_job_is_forked(
    workspace: Workspace, upstream: Upstream
) -> None:
    await workspace.make_job("up/ok")
    write_providers_file(f"{upstream.origin}/other/v1", workspace.folder)

    refused = await workspace.run("resume", "last")
    forked = await workspace.run("resume", "last", "--fork")

    assert refused.code == 2
    assert re.search(r"^fanout: 0: up/ok.base_url: was `.*`, is `.*/other/v1`$", refused.err, re.M)
    assert forked.code == 0, forked.err
    assert [request.path for request in upstream.requests] == ["/other/v1/chat/completions"] * 5


async def test_a_job_stops_before_it_exceeds_its_maximum_cost_and_resumes_with_a_higher_one(
    tmp_path: Path, upstream: Upstream
) -> None:
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}
    more = {"models": {"dear": {"provider": "up", "id": "ok", "kind": "chat", "price": price}}}
    workspace = Workspace(tmp_path, upstream, more=more)
    workspace.write("many.jsonl", [{"prompt": f"q{number}"} for number in range(30)])

    result = await workspace.run(
        "run", "many.jsonl", "-m", "dear", "--max-tokens", "4", "--max-cost", "0.0005", "--concurrency", "2"
    )
    spent = (await workspace.get_last_job())["progress"]["cost_usd"]
    again = await workspace.run("resume", "last", "--max-cost", "1")

    assert result.code == 3
    assert "USD" in result.err
    assert "to continue: fanout batch resume job_" in result.err
    assert spent
    assert spent <= 0.0005
    assert again.code == 0, again.err
    assert len(upstream.requests) == 30


async def test_jobs_are_listed_shown_and_exported_by_an_id_prefix(workspace: Workspace) -> None:
    first = await workspace.make_job("up/ok", name="first")
    second = await workspace.make_job("up/say-yes-then-say-no", "up/say-yes", "up/400", name="second", ended=True)

    listed = await workspace.run("list")
    shown = await workspace.run("status", "last")
    different = await workspace.run("export", second["id"][:20], "--different")
    failed = await workspace.run("export", second["id"][4:20], "--failed", "-o", "failed.csv")

    assert [line.split()[-1] for line in listed.out.splitlines()] == ["name", "second", "first"]
    assert re.findall(ID, listed.out) == [second["id"], first["id"]]
    assert "second · 5 rows, 15 calls · done" in shown.out
    assert "5 failed (bad_request 5)" in shown.out
    texts = {record["text"] for record in map(json.loads, different.out.splitlines())}
    assert {"yes", "no"} <= texts
    assert failed.code == 0
    with (workspace.folder / "failed.csv").open(newline="") as file:
        assert {row["error_kind"] for row in csv.DictReader(file)} == {"bad_request"}


async def test_an_ambiguous_id_prefix_is_refused(workspace: Workspace) -> None:
    async with workspace.open_jobs() as jobs:
        with pytest.raises(ClickException, match="there is no job yet"):
            await find_job(jobs, "last")
    made = [await workspace.make_job("up/ok") for _ in range(2)]
    async with workspace.open_jobs() as jobs:
        assert [(await find_job(jobs, job["id"][:24]))["id"] for job in made] == [job["id"] for job in made]
        assert (await find_job(jobs, "last"))["id"] == made[1]["id"]
        with pytest.raises(ClickException, match="several jobs begin with `job_`: job_"):
            await find_job(jobs, "job_")
        with pytest.raises(ClickException, match="no job `zzz`; `fanout batch list` shows them"):
            await find_job(jobs, "zzz")


async def test_a_job_that_has_ended_cannot_be_cancelled(workspace: Workspace) -> None:
    await workspace.make_job("up/ok", ended=True)

    result = await workspace.run("cancel", "last")

    assert result.code == 2
    assert "is done: there is nothing to cancel" in result.err


async def test_a_job_run_by_another_command_can_be_watched_and_cancelled(workspace: Workspace, upstream: Upstream) -> None:
    async with workspace.start("run", "in.jsonl", "-m", "up/sleep-0.3", "--concurrency", "1") as process:
        await upstream.wait_for_requests(1, timeout_s=PATIENCE_S)
        watching = asyncio.create_task(workspace.run("status", "last", "--watch", "--json"))
        cancelled = await workspace.run("cancel", "last")
        code, output = await wait_for_exit(process)
        watched = await watching

    if code == 3:  # the job was cancelled before it was done
        assert cancelled.code == 0
        assert "it was cancelled" in output
    assert json.loads(watched.out.splitlines()[-1])["state"] in ("cancelled", "done")
    assert watched.code == code


async def test_a_terminal_shows_live_progress_and_keeps_only_the_summary(workspace: Workspace, upstream: Upstream) -> None:
    workspace.write("many.jsonl", [{"prompt": f"q{number}"} for number in range(20)])
    path = str(workspace.folder / "many.jsonl")
    models = ["-m", "up/sleep-0.2", "-m", "up/400"]
    arguments = ["batch", "run", path, *models, "--concurrency", "2", "--config", str(workspace.config)]
    async with TerminalSession(*arguments, columns=120, FANOUT_STORE=workspace.store) as screen:
        await screen.wait_for("left")
        await screen.wait_for("bad_request")
        await screen.press_ctrl_c()
        await screen.wait_for("to continue: ")
        code = await screen.wait()

    assert code == 130
    assert "━" in screen.output
    assert re.search(r"\d+ of 40 · \d+ %", screen.output)
    assert re.search(r"of 20", screen.output)
    assert "press Ctrl-C again to end them now" in screen.output
    left = "\n".join(screen.final_lines)
    assert "up/400" in left
    assert "━" not in left
    assert "to continue: fanout batch resume job_" in left


async def test_a_job_can_be_run_through_a_server(workspace: Workspace, upstream: Upstream) -> None:
    async with serve_fanout("--config", str(workspace.config), FANOUT_STORE=workspace.store) as address:

        async def run_there(verb: str, *arguments: str) -> CommandResult:
            return await run_fanout("batch", verb, *arguments, "--server", address, cwd=workspace.folder)

        result = await run_there(
            "run", "in.jsonl", "-m", "up/ok", "-m", "up/fail-10-then-ok", "-o", "r.jsonl", "-o", "r.parquet"
        )
        again = await run_there("retry", "last", "--deadline", "1h", "--json")
        listed = await run_there("list")

    assert result.code == 1, result.err
    assert len(workspace.read_records("r.jsonl")) == 10
    assert pyarrow.parquet.read_table(workspace.folder / "r.parquet").num_rows == 10
    assert "5 failed (server 5)" in result.out
    assert f"--server {address}" in result.out
    assert again.code == 0, again.err
    assert json.loads(again.out)["progress"]["answered"] == 10
    assert "in.jsonl" in listed.out


async def test_a_server_estimates_refuses_and_forks_jobs(workspace: Workspace, upstream: Upstream) -> None:
    workspace.write("bad.jsonl", ['{"prompt": "fine"}', '{"promt": "hi"}'])
    workspace.write("other.jsonl", [{"prompt": "other"}])
    spec = JobSpec(models=({"model": "up/ok"},), deadline=time.time() + 60)
    async with in_process(workspace.config, FANOUT_STORE=workspace.store) as server, open_remote_jobs(server.url, None) as jobs:
        with open_input(workspace.input, None) as source:
            estimate = await jobs.estimate(spec, source)
        with (
            open_input(str(workspace.folder / "bad.jsonl"), None) as source,
            pytest.raises(RequestError, match=r"line 2: promt: .*did you mean `prompt`"),
        ):
            await jobs.create(spec, source)
        with open_input(workspace.input, None) as source:
            job = await jobs.create(spec, source)
        job = [seen.job async for seen in jobs.run(job)][-1]
        with (
            open_input(str(workspace.folder / "other.jsonl"), None) as source,
            pytest.raises(RequestError, match=r"input: was `in.jsonl` \(sha256 \w+…\), is `other.jsonl` \(sha256 \w+…\)"),
        ):
            await jobs.resume(job, {}, source, fork=False)
        with open_input(str(workspace.folder / "other.jsonl"), None) as source:
            forked = await jobs.resume(job, {}, source, fork=True)
        with pytest.raises(ClickException, match="no job `zzz`"):
            await find_job(jobs, "zzz")
        assert (await find_job(jobs, job["id"][4:20]))["id"] == job["id"]

    assert (estimate["items"], estimate["calls"]) == (5, 5)
    assert (job["state"], job["progress"]["answered"]) == ("done", 5)
    assert (forked["items"], forked["models"]) == (1, job["models"])


async def test_ctrl_c_stops_a_job_on_a_server(workspace: Workspace, upstream: Upstream) -> None:
    async with serve_fanout("--config", str(workspace.config), FANOUT_STORE=workspace.store) as address:
        arguments = ["batch", "run", workspace.input, "-m", "up/sleep-0.5", "--concurrency", "1", "--server", address]
        async with start_fanout(*arguments, cwd=workspace.folder) as process:
            await upstream.wait_for_requests(1, timeout_s=PATIENCE_S)
            process.send_signal(signal.SIGINT)
            code, output = await wait_for_exit(process)
        printed = re.search(r"^to continue: fanout (batch resume .*)$", output, re.M)
        assert printed, output
        result = await run_fanout(*printed[1].split(), cwd=workspace.folder)

    assert code == 130
    assert result.code == 0, result.err
    assert len(upstream.requests) == 5
    assert upstream.abandoned == []


async def test_a_server_runs_an_openai_batch_file(workspace: Workspace, upstream: Upstream) -> None:
    workspace.write("lines.jsonl", [{"custom_id": "a", **LINE}, {"custom_id": "b", **LINE}])
    workspace.write("twice.jsonl", [{"custom_id": "a", **LINE}, {"custom_id": "a", **LINE}])
    spec = JobSpec(kind="requests", endpoint=LINE["url"])
    async with in_process(workspace.config, FANOUT_STORE=workspace.store) as server, open_remote_jobs(server.url, None) as jobs:
        with open_input(str(workspace.folder / "lines.jsonl"), None) as source:
            job = await jobs.create(spec, source)
        job = [seen.job async for seen in jobs.run(job)][-1]
        await jobs.export(job, str(workspace.folder / "r.jsonl"), None, ResultFilter())
        with (
            open_input(str(workspace.folder / "twice.jsonl"), None) as source,
            pytest.raises(RequestError, match="occurs more than once in the input"),
        ):
            await jobs.create(spec, source)
        with (
            open_input(str(workspace.folder / "lines.jsonl"), None) as source,
            pytest.raises(UsageError, match="has no --dry-run"),
        ):
            await jobs.estimate(spec, source)

    assert job["state"] == "done"
    assert [record["custom_id"] for record in workspace.read_records("r.jsonl")] == ["a", "b"]


async def test_a_missing_server_is_reported_in_one_sentence(workspace: Workspace) -> None:
    result = await run_fanout("batch", "list", "--server", "http://127.0.0.1:9", cwd=workspace.folder)

    assert result.code == 2
    assert "no server at http://127.0.0.1:9" in result.err
    assert result.err.count("\n") == 1


needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="NO /dev/full: a full disk cannot be tried")


class TestUnwritableOutputs:
    """2 means that nothing was sent; what was paid for is 3, and the command that writes it is shown, also with `-q`."""

    @pytest.mark.parametrize("quiet", [[], ["-q"]], ids=["shown", "quiet"])
    @pytest.mark.parametrize("output", ["none/results.csv", "results.docx", "."])
    async def test_one_that_is_seen_before_the_run_sends_nothing(
        self, output: str, quiet: list[str], workspace: Workspace, upstream: Upstream
    ) -> None:
        result = await workspace.run("run", workspace.input, "-m", "up/ok", "-o", "good.jsonl", "-o", output, *quiet)

        assert (result.code, result.out, upstream.requests) == (2, "", [])
        assert output in result.err
        assert not (workspace.folder / "good.jsonl").exists()

    @needs_full_device
    @pytest.mark.parametrize("quiet", [[], ["-q"]], ids=["shown", "quiet"])
    async def test_one_that_fails_after_the_run_names_the_way_to_the_results(
        self, quiet: list[str], workspace: Workspace, upstream: Upstream
    ) -> None:
        (workspace.folder / "full.jsonl").symlink_to("/dev/full")
        result = await workspace.run("run", workspace.input, "-m", "up/ok", "-o", "full.jsonl", "-o", "good.jsonl", *quiet)

        assert (result.code, len(upstream.requests)) == (3, 5)
        assert len(workspace.read_records("good.jsonl")) == 5
        job = ID.search(result.err)
        assert "No space left on device" in result.err
        assert job
        assert f"to write them: fanout batch export {job[0]}" in result.err

    @pytest.mark.parametrize("command", ["resume", "retry"])
    async def test_the_output_of_an_old_job_is_tried_before_the_first_call_too(
        self, command: str, workspace: Workspace, upstream: Upstream
    ) -> None:
        job = await workspace.make_job("up/fail", ended=command == "retry")
        sent = len(upstream.requests)
        result = await workspace.run(command, job["id"], "-o", "none/results.jsonl")

        assert (result.code, len(upstream.requests)) == (2, sent)
        assert "`none/results.jsonl` cannot be written: there is no folder `none`" in result.err

    @needs_full_device
    async def test_an_export_gives_2_since_it_sends_nothing(self, workspace: Workspace, upstream: Upstream) -> None:
        job = await workspace.make_job("up/ok", ended=True)
        (workspace.folder / "full.jsonl").symlink_to("/dev/full")
        sent = len(upstream.requests)
        early = await workspace.run("export", job["id"], "-o", "none/results.jsonl")
        late = await workspace.run("export", job["id"], "-o", "full.jsonl")

        assert (early.code, late.code, len(upstream.requests)) == (2, 2, sent)
        assert "there is no folder" in early.err
        assert "No space left" in late.err
