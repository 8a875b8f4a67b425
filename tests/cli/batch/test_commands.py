"""`fanout batch`, the real command: what it writes, what it refuses, how it stops and goes on."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import signal
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from click import ClickException, UsageError

from fanout.cli.batch.backend import ExportFilter, NewJob, find_job
from fanout.cli.batch.input import open_input
from fanout.cli.batch.local_jobs import LocalJobs, open_local_jobs
from fanout.cli.batch.remote_jobs import open_remote_jobs
from fanout.cli.main import main
from fanout.config.settings import load_settings
from fanout.core.errors import ConfigError, RequestError
from fanout.core.json_text import JsonObject
from fanout.dispatch.dispatcher import open_dispatcher
from fanout.jobs.manager import open_job_manager
from fanout.store import open_store
from fanout.store.jobs.job_store import JobStore
from tests.support.cli import PATIENCE_S, Ran, run, serving, started
from tests.support.server import serving as in_process
from tests.support.terminal import Screen
from tests.support.upstreams import Upstream, providers_file

ID = re.compile(r"job_[0-9a-f]{32}")
LINE: dict[str, Any] = {
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "up/ok", "messages": [{"role": "user", "content": "hi"}]},
}
"""Of OpenAI's batches, without its id."""


class Desk:
    """A folder with a configuration, an input and a store, and `fanout batch` in it."""

    def __init__(self, folder: Path, upstream: Upstream, **row: Any) -> None:
        self.folder, self._upstream = folder, upstream
        row = {"retries": {"attempts": 2, "max_delay_s": 0.02}, **row}
        self.config = providers_file(upstream.url, folder, **row)
        self.input = self.write("in.jsonl", [{"prompt": f"q{number}"} for number in range(5)])
        self.store = str(folder / "jobs.db")

    def write(self, name: str, rows: Sequence[Any]) -> str:
        path = self.folder / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return str(path)

    async def batch(self, verb: str, *arguments: str, given: bytes | None = None, **variables: str) -> Ran:
        options = ["--config", str(self.config)]
        variables = {"FANOUT_STORE": self.store, **variables}
        return await run("batch", verb, *arguments, *options, given=given, cwd=self.folder, **variables)

    def started(self, verb: str, *arguments: str) -> Any:
        options = ["--config", str(self.config)]
        return started("batch", verb, *arguments, *options, cwd=self.folder, FANOUT_STORE=self.store)

    @asynccontextmanager
    async def jobs(self) -> AsyncGenerator[LocalJobs]:
        """Its jobs, in this process."""
        settings = load_settings(self.config, {"HOME": str(self.folder)})
        async with open_store(self.store) as opened, open_dispatcher(settings) as dispatcher:
            assert opened
            store = JobStore(opened.database)
            async with open_job_manager(store, dispatcher) as manager:
                yield LocalJobs(manager, store, dispatcher)

    async def last(self) -> JsonObject:
        async with self.jobs() as jobs:
            return await find_job(jobs, "last")

    async def made(self, *models: str, rows: str = "in.jsonl", ended: bool = False, name: str | None = None) -> JsonObject:
        """A job that is still to be run, or has been."""
        async with self.jobs() as jobs:
            with open_input(str(self.folder / rows), None) as source:
                job = await jobs.create(NewJob(models, name=name), source)
            if ended:
                async for seen in jobs.run(job):
                    job = seen.job
            return job

    def records(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]


@pytest.fixture
def desk(tmp_path: Path, upstream: Upstream) -> Desk:
    return Desk(tmp_path, upstream)


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    return process.returncode, out.decode()


# run


async def test_results_stand_in_every_format_that_is_asked_for(desk: Desk, upstream: Upstream) -> None:
    outputs = [part for name in ("r.jsonl", "r.csv", "r.parquet") for part in ("-o", name)]

    told = await desk.batch("run", "in.jsonl", "-m", "up/ok", "-m", "up/say-yes", "--repeats", "2", *outputs)

    assert told.code == 0, told.err
    lines = desk.records("r.jsonl")
    assert [(line["item"], line["entry"], line["repeat"]) for line in lines] == [
        (item, entry, repeat) for item in range(5) for entry in (0, 1) for repeat in (0, 1)
    ]
    assert {(line["label"], line["text"]) for line in lines} == {("up/ok", "This is ok."), ("up/say-yes", "yes")}
    with (desk.folder / "r.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 20
    assert pyarrow.parquet.read_table(desk.folder / "r.parquet").column("text").to_pylist() == [line["text"] for line in lines]
    assert len(upstream.requests) == 20
    assert re.search(r"^up/ok +10  0 +100 +40 ", told.out, re.M)
    assert ": done after " in told.out
    assert "results: r.jsonl, r.csv, r.parquet" in told.out


async def test_failures_are_counted_by_kind_and_can_be_asked_again(desk: Desk, upstream: Upstream) -> None:
    told = await desk.batch("run", "in.jsonl", "-m", "up/ok", "-m", "up/400", "-m", "up/fail-10-then-ok")
    job = ID.search(told.out)
    assert job
    assert told.code == 1
    assert "10 failed (bad_request 5, server 5)" in told.out
    assert f"fanout batch retry {job[0]} --config {desk.config}" in told.out

    nothing = await desk.batch("retry", "last", "--kind", "timeout")
    again = await desk.batch("retry", job[0][:8], "--kind", "server", "-o", "-", "--quiet")

    assert (nothing.code, nothing.out) == (1, "")
    assert "there are no failures of that kind" in nothing.err
    assert again.code == 1
    assert again.err == ""
    ends = [(record["label"], record["error_kind"]) for record in map(json.loads, again.out.splitlines())]
    assert sorted(set(ends), key=str) == [("up/400", "bad_request"), ("up/fail-10-then-ok", None), ("up/ok", None)]
    assert len(upstream.of("400")) == 5


async def test_bad_rows_are_a_table_and_nothing_is_sent(desk: Desk, upstream: Upstream) -> None:
    rows = ['{"prompt": "fine"}', '{"promt": "hi"}', "not JSON", '{"prompt": "hi", "temperature": 9}']
    desk.write("bad.jsonl", rows)

    told = await desk.batch("run", "bad.jsonl", "-m", "up/ok")

    assert (told.code, told.out) == (2, "")
    assert re.search(r"^ +2  promt +.*did you mean `prompt`", told.err, re.M)
    assert re.search(r"^ +3 .*JSON", told.err, re.M)
    assert re.search(r"^ +4  temperature +9 is not allowed", told.err, re.M)
    assert told.err.splitlines()[-1] == "fanout: 3 bad rows; nothing was sent"
    assert upstream.requests == []
    async with desk.jobs() as jobs:
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
        (["in.jsonl", "--format", "xml"], "`xml` is not allowed: jsonl, csv, tsv, parquet"),
        (["in.jsonl", "--deadline", "soon"], "`soon` is not allowed: `2h`"),
        (["in.jsonl", "--deadline", "2020-01-01T00:00"], "has passed"),
        (["in.jsonl", "--template", "@absent.txt"], "`absent.txt` cannot be read"),
        (["in.jsonl", "--label", "x"], "`x` is not allowed: NAME=value"),
        (["in.jsonl", "--repeats", "0"], "--repeats"),
        (["in.jsonl", "--max-cost", "0"], "--max-cost"),
        (["lines.jsonl", "-m", "up/ok", "--max-tokens", "3"], "leave out --model, --max-tokens"),
    ],
)
def test_wrong_usage_is_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "hi"}\n')
    (tmp_path / "lines.jsonl").write_text(json.dumps({"custom_id": "a", **LINE}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fanout", "batch", "run", *arguments])

    with pytest.raises(SystemExit) as end:
        main()

    told = capsys.readouterr()
    assert (end.value.code, told.out) == (2, "")
    assert sentence in told.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-m", "nope"], "unknown model `nope`"),
        (["-m", "up/ok", "--max-cost", "1"], "max_cost_usd: cannot be kept: what `up/ok` costs is not known"),
    ],
)
async def test_what_cannot_be_asked_is_said_before_anything_is_sent(
    desk: Desk, upstream: Upstream, arguments: list[str], sentence: str
) -> None:
    told = await desk.batch("run", "in.jsonl", *arguments)

    assert (told.code, told.out) == (2, "")
    assert sentence in told.err
    assert upstream.requests == []


@pytest.mark.parametrize("store", ["off", "sqlite://", ":memory:"])
async def test_a_job_needs_a_store_that_outlives_it(store: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"FANOUT_STORE: is .*outlives the command; name a file"):
        async with open_local_jobs(load_settings(None, {"HOME": str(tmp_path), "FANOUT_STORE": store})):
            pass


async def test_a_dry_run_shows_calls_tokens_cost_and_time(tmp_path: Path, upstream: Upstream) -> None:
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}
    more = {"models": {"dear": {"provider": "up", "id": "ok", "kind": "chat", "price": price}}}
    desk = Desk(tmp_path, upstream, more=more, limits={"requests_per_minute": 5})
    asked = ["in.jsonl", "-m", "dear", "--repeats", "3", "--max-tokens", "100", "--dry-run"]

    told = await desk.batch("run", *asked, "--max-cost", "0.001", FANOUT_STORE="off")
    unknown = await desk.batch("run", "in.jsonl", "-m", "up/ok", "--dry-run", "--json")

    assert told.code == 0, told.err
    assert re.search(r"^dear +15 +~\d+ +≤ 1,500  ~\$0\.015\d*$", told.out, re.M)
    assert "5 rows, 15 calls; nothing was sent" in told.out
    assert "more than --max-cost 0.001" in told.out
    assert "time: at least 2 min under the configured limits" in told.out
    estimate = json.loads(unknown.out)
    assert (estimate["calls"], estimate["cost_usd"], estimate["models"][0]["guessed"]) == (5, None, True)
    assert upstream.requests == []


async def test_a_template_and_parameters_are_sent_from_a_table_on_standard_input(desk: Desk, upstream: Upstream) -> None:
    (desk.folder / "ask.txt").write_text("Say {{word}}.\n")
    asked = ["-", "--format", "csv", "-m", "up/ok", "--template", "@ask.txt", "--system", "be brief", "--temperature", "0.5"]

    told = await desk.batch(
        "run", *asked, "--name", "words", "--label", "team=a", "--deadline", "1h", "--json", given=b"word\nyes\nno\n"
    )

    assert told.code == 0, told.err
    assert [
        request.body["messages"] for request in sorted(upstream.requests, key=lambda one: one.body["messages"][1]["content"])
    ] == [[{"role": "system", "content": "be brief"}, {"role": "user", "content": f"Say {word}."}] for word in ("no", "yes")]
    assert {request.body["temperature"] for request in upstream.requests} == {0.5}
    job = json.loads(told.out)
    assert (job["name"], job["metadata"], job["state"], job["items"]) == ("words", {"team": "a"}, "done", 2)
    assert job["input"]["name"] == "stdin"
    assert 3_500 < datetime.fromisoformat(job["deadline"]).timestamp() - time.time() <= 3_600
    assert len(job["input"]["sha256"]) == 64


async def test_lines_of_openais_batches_name_their_own_models(desk: Desk, upstream: Upstream) -> None:
    desk.write("lines.jsonl", [{"custom_id": "a", **LINE}, {"custom_id": "b", **LINE}])

    told = await desk.batch("run", "lines.jsonl", "-o", "r.jsonl")

    assert told.code == 0, told.err
    assert [(line["custom_id"], line["text"]) for line in desk.records("r.jsonl")] == [(id, "This is ok.") for id in ("a", "b")]
    assert len(upstream.requests) == 2


# Stopping and going on


async def test_ctrl_c_stops_in_order_and_what_it_prints_goes_on(desk: Desk, upstream: Upstream) -> None:
    desk.write("many.jsonl", [{"prompt": f"q{number}"} for number in range(60)])
    options = ["many.jsonl", "-m", "up/sleep-0.1", "--concurrency", "3"]
    async with desk.started("run", *options, "-o", "r.jsonl") as process:
        await upstream.arrived(6, timeout_s=PATIENCE_S)
        process.send_signal(signal.SIGINT)
        code, said = await ended(process)

    assert code == 130, said
    printed = re.search(r"^to continue: fanout (batch resume .*)$", said, re.M)
    assert printed, said
    done = len(upstream.requests)
    assert len(desk.records("r.jsonl")) == done < 60  # what was under way has been waited for
    assert upstream.abandoned == []

    told = await run(*printed[1].split(), FANOUT_STORE=desk.store, cwd=desk.folder)

    assert told.code == 0, told.err
    assert len(desk.records("r.jsonl")) == len(upstream.requests) == 60


async def test_a_second_ctrl_c_waits_for_nothing(desk: Desk, upstream: Upstream) -> None:
    async with desk.started("run", "in.jsonl", "-m", "up/hang") as process:
        await upstream.arrived(4, timeout_s=PATIENCE_S)
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.3)
        assert process.returncode is None
        process.send_signal(signal.SIGINT)
        code, said = await ended(process)

    assert code == 130
    assert "to continue: fanout batch resume job_" in said
    assert (await desk.last())["state"] == "stopped"


async def test_what_is_under_way_is_waited_for_no_longer_than_the_grace(desk: Desk, upstream: Upstream) -> None:
    async with started(
        *("batch", "run", "in.jsonl", "-m", "up/hang", "--config", str(desk.config)),
        cwd=desk.folder,
        FANOUT_STORE=desk.store,
        FANOUT_GRACE_S="0.3",
    ) as process:
        await upstream.arrived(4, timeout_s=PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        code, said = await ended(process)

    assert code == 143
    assert "to continue: fanout batch resume job_" in said
    assert (await desk.last())["progress"]["ended"] == 0


async def test_after_kill_9_resume_asks_only_what_has_no_record(desk: Desk, upstream: Upstream) -> None:
    desk.write("many.jsonl", [{"prompt": f"q{number}"} for number in range(40)])
    async with desk.started("run", "many.jsonl", "-m", "up/sleep-0.05", "--concurrency", "4") as process:
        await upstream.arrived(12, timeout_s=PATIENCE_S)
        process.kill()
        await ended(process)
    cut_off = await desk.last()

    told = await desk.batch("resume", "last", "-o", "r.jsonl")

    assert cut_off["state"] == "running"
    assert cut_off["progress"]["left"] > 0
    assert told.code == 0, told.err
    records = desk.records("r.jsonl")
    assert len({record["item"] for record in records}) == len(records) == 40
    assert 40 <= len(upstream.requests) <= 44


async def test_another_input_is_refused_with_its_difference_unless_it_is_forked(desk: Desk, upstream: Upstream) -> None:
    job = await desk.made("up/ok")
    rows = [{"prompt": f"q{number}"} for number in range(6)]
    desk.write("other.jsonl", [*rows[:2], {"prompt": "changed"}, *rows[3:]])

    refused = await desk.batch("resume", "last", "other.jsonl")
    forked = await desk.batch("resume", "last", "other.jsonl", "--fork", "--json")

    assert refused.code == 2
    assert "input: is not what the job was made of: 1 row differs, first on line 3; 1 row more" in refused.err
    assert "`--fork` asks everything again" in refused.err
    assert forked.code == 0, forked.err
    made = json.loads(forked.out)
    assert (made["items"], made["progress"]["answered"], made["forked_from"]) == (6, 6, job["id"])
    assert len(upstream.requests) == 6


async def test_an_input_that_says_the_same_in_another_way_is_the_same(desk: Desk, upstream: Upstream) -> None:
    job = await desk.made("up/ok")
    (desk.folder / "same.csv").write_text("prompt\n" + "".join(f"q{number}\n" for number in range(5)))
    (desk.folder / "less.csv").write_text("prompt\nq0\n")

    async with desk.jobs() as jobs:
        with open_input(str(desk.folder / "same.csv"), None) as source:
            assert (await jobs.resume(job, {}, source, fork=False))["state"] == "queued"
        with open_input(str(desk.folder / "less.csv"), None) as source, pytest.raises(RequestError, match="4 rows fewer"):
            await jobs.resume(job, {}, source, fork=False)


async def test_a_changed_configuration_is_refused_with_its_difference_unless_it_is_forked(
    desk: Desk, upstream: Upstream
) -> None:
    await desk.made("up/ok")
    providers_file(f"{upstream.origin}/other/v1", desk.folder)

    refused = await desk.batch("resume", "last")
    forked = await desk.batch("resume", "last", "--fork")

    assert refused.code == 2
    assert re.search(r"^fanout: 0: up/ok.base_url: was `.*`, is `.*/other/v1`$", refused.err, re.M)
    assert forked.code == 0, forked.err
    assert [request.path for request in upstream.requests] == ["/other/v1/chat/completions"] * 5


async def test_it_stops_before_it_costs_more_and_goes_on_with_more(tmp_path: Path, upstream: Upstream) -> None:
    price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0}
    more = {"models": {"dear": {"provider": "up", "id": "ok", "kind": "chat", "price": price}}}
    desk = Desk(tmp_path, upstream, more=more)
    desk.write("many.jsonl", [{"prompt": f"q{number}"} for number in range(30)])

    told = await desk.batch(
        "run", "many.jsonl", "-m", "dear", "--max-tokens", "4", "--max-cost", "0.0005", "--concurrency", "2"
    )
    spent = (await desk.last())["progress"]["cost_usd"]
    again = await desk.batch("resume", "last", "--max-cost", "1")

    assert told.code == 3
    assert "USD" in told.err
    assert "to continue: fanout batch resume job_" in told.err
    assert 0 < spent <= 0.0005
    assert again.code == 0, again.err
    assert len(upstream.requests) == 30


# Looking


async def test_jobs_are_listed_shown_and_exported_by_the_beginning_of_their_ids(desk: Desk) -> None:
    first = await desk.made("up/ok", name="first")
    second = await desk.made("up/say-yes-then-say-no", "up/say-yes", "up/400", name="second", ended=True)

    listed = await desk.batch("list")
    shown = await desk.batch("status", "last")
    different = await desk.batch("export", second["id"][:20], "--different")
    failed = await desk.batch("export", second["id"][4:20], "--failed", "-o", "failed.csv")

    assert [line.split()[-1] for line in listed.out.splitlines()] == ["name", "second", "first"]
    assert re.findall(ID, listed.out) == [second["id"], first["id"]]
    assert "second · 5 rows, 15 calls · done" in shown.out
    assert "5 failed (bad_request 5)" in shown.out
    texts = {record["text"] for record in map(json.loads, different.out.splitlines())}
    assert {"yes", "no"} <= texts
    assert failed.code == 0
    with (desk.folder / "failed.csv").open(newline="") as file:
        assert {row["error_kind"] for row in csv.DictReader(file)} == {"bad_request"}


async def test_a_job_is_named_without_doubt(desk: Desk) -> None:
    async with desk.jobs() as jobs:
        with pytest.raises(ClickException, match="there is no job yet"):
            await find_job(jobs, "last")
    made = [await desk.made("up/ok") for _ in range(2)]
    async with desk.jobs() as jobs:
        assert [(await find_job(jobs, job["id"][:24]))["id"] for job in made] == [job["id"] for job in made]
        assert (await find_job(jobs, "last"))["id"] == made[1]["id"]
        with pytest.raises(ClickException, match="several jobs begin with `job_`: job_"):
            await find_job(jobs, "job_")
        with pytest.raises(ClickException, match="no job `zzz`; `fanout batch list` shows them"):
            await find_job(jobs, "zzz")


async def test_what_has_ended_cannot_be_cancelled(desk: Desk) -> None:
    await desk.made("up/ok", ended=True)

    told = await desk.batch("cancel", "last")

    assert told.code == 2
    assert "is done: there is nothing to cancel" in told.err


async def test_a_job_that_another_command_runs_is_watched_and_cancelled(desk: Desk, upstream: Upstream) -> None:
    async with desk.started("run", "in.jsonl", "-m", "up/sleep-0.3", "--concurrency", "1") as process:
        await upstream.arrived(1, timeout_s=PATIENCE_S)
        watching = asyncio.create_task(desk.batch("status", "last", "--watch", "--json"))
        cancelled = await desk.batch("cancel", "last")
        code, said = await ended(process)
        watched = await watching

    if code == 3:  # it was not done before it heard of it
        assert cancelled.code == 0
        assert "it was cancelled" in said
    assert json.loads(watched.out.splitlines()[-1])["state"] in ("cancelled", "done")
    assert watched.code == code


# What a person sees


async def test_a_terminal_shows_it_move_and_then_the_summary_alone(desk: Desk, upstream: Upstream) -> None:
    desk.write("many.jsonl", [{"prompt": f"q{number}"} for number in range(20)])
    asked = [
        "batch",
        "run",
        "many.jsonl",
        "-m",
        "up/sleep-0.2",
        "-m",
        "up/400",
        "--concurrency",
        "2",
        "--config",
        str(desk.config),
    ]
    asked[2] = str(desk.folder / "many.jsonl")
    async with Screen(*asked, columns=120, FANOUT_STORE=desk.store) as screen:
        await screen.until("left")
        await screen.until("bad_request")
        screen.type("\x03")
        await screen.until("to continue: ")
        code = await screen.end()

    assert code == 130
    assert "━" in screen.seen
    assert re.search(r"\d+ of 40 · \d+ %", screen.seen)
    assert re.search(r"of 20", screen.seen)
    assert "press Ctrl-C again to end them now" in screen.seen
    left = "\n".join(screen.left)
    assert "up/400" in left
    assert "━" not in left
    assert "to continue: fanout batch resume job_" in left


# Through a server


async def test_a_server_takes_runs_and_answers_it(desk: Desk, upstream: Upstream) -> None:
    async with serving("--config", str(desk.config), FANOUT_STORE=desk.store) as address:

        async def there(verb: str, *arguments: str) -> Ran:
            return await run("batch", verb, *arguments, "--server", address, cwd=desk.folder)

        told = await there("run", "in.jsonl", "-m", "up/ok", "-m", "up/fail-10-then-ok", "-o", "r.jsonl", "-o", "r.parquet")
        again = await there("retry", "last", "--deadline", "1h", "--json")
        listed = await there("list")

    assert told.code == 1, told.err
    assert len(desk.records("r.jsonl")) == 10
    assert pyarrow.parquet.read_table(desk.folder / "r.parquet").num_rows == 10
    assert "5 failed (server 5)" in told.out
    assert f"--server {address}" in told.out
    assert again.code == 0, again.err
    assert json.loads(again.out)["progress"]["answered"] == 10
    assert "in.jsonl" in listed.out


async def test_a_server_estimates_refuses_and_forks(desk: Desk, upstream: Upstream) -> None:
    desk.write("bad.jsonl", ['{"prompt": "fine"}', '{"promt": "hi"}'])
    desk.write("other.jsonl", [{"prompt": "other"}])
    asked = NewJob(["up/ok"], limits={"deadline": time.time() + 60})
    async with in_process(desk.config, FANOUT_STORE=desk.store) as server, open_remote_jobs(server.url, None) as jobs:
        with open_input(desk.input, None) as source:
            estimate = await jobs.estimate(asked, source)
        with (
            open_input(str(desk.folder / "bad.jsonl"), None) as source,
            pytest.raises(RequestError, match=r"line 2: promt: .*did you mean `prompt`"),
        ):
            await jobs.create(asked, source)
        with open_input(desk.input, None) as source:
            job = await jobs.create(asked, source)
        job = [seen.job async for seen in jobs.run(job)][-1]
        with (
            open_input(str(desk.folder / "other.jsonl"), None) as source,
            pytest.raises(RequestError, match=r"input: was `in.jsonl` \(sha256 \w+…\), is `other.jsonl` \(sha256 \w+…\)"),
        ):
            await jobs.resume(job, {}, source, fork=False)
        with open_input(str(desk.folder / "other.jsonl"), None) as source:
            forked = await jobs.resume(job, {}, source, fork=True)
        with pytest.raises(ClickException, match="no job `zzz`"):
            await find_job(jobs, "zzz")
        assert (await find_job(jobs, job["id"][4:20]))["id"] == job["id"]

    assert (estimate["items"], estimate["calls"]) == (5, 5)
    assert (job["state"], job["progress"]["answered"]) == ("done", 5)
    assert (forked["items"], forked["models"]) == (1, job["models"])


async def test_ctrl_c_stops_a_servers_job_too(desk: Desk, upstream: Upstream) -> None:
    async with serving("--config", str(desk.config), FANOUT_STORE=desk.store) as address:
        asked = ["batch", "run", desk.input, "-m", "up/sleep-0.5", "--concurrency", "1", "--server", address]
        async with started(*asked, cwd=desk.folder) as process:
            await upstream.arrived(1, timeout_s=PATIENCE_S)
            process.send_signal(signal.SIGINT)
            code, said = await ended(process)
        printed = re.search(r"^to continue: fanout (batch resume .*)$", said, re.M)
        assert printed, said
        told = await run(*printed[1].split(), cwd=desk.folder)

    assert code == 130
    assert told.code == 0, told.err
    assert len(upstream.requests) == 5
    assert upstream.abandoned == []


async def test_a_server_runs_lines_of_openais_batches(desk: Desk, upstream: Upstream) -> None:
    desk.write("lines.jsonl", [{"custom_id": "a", **LINE}, {"custom_id": "b", **LINE}])
    desk.write("twice.jsonl", [{"custom_id": "a", **LINE}, {"custom_id": "a", **LINE}])
    asked = NewJob([], endpoint=LINE["url"])
    async with in_process(desk.config, FANOUT_STORE=desk.store) as server, open_remote_jobs(server.url, None) as jobs:
        with open_input(str(desk.folder / "lines.jsonl"), None) as source:
            job = await jobs.create(asked, source)
        job = [seen.job async for seen in jobs.run(job)][-1]
        await jobs.export(job, str(desk.folder / "r.jsonl"), None, ExportFilter())
        with (
            open_input(str(desk.folder / "twice.jsonl"), None) as source,
            pytest.raises(RequestError, match="stands in the input more than once"),
        ):
            await jobs.create(asked, source)
        with open_input(str(desk.folder / "lines.jsonl"), None) as source, pytest.raises(UsageError, match="has no --dry-run"):
            await jobs.estimate(asked, source)

    assert job["state"] == "done"
    assert [record["custom_id"] for record in desk.records("r.jsonl")] == ["a", "b"]


async def test_no_server_is_one_sentence(desk: Desk) -> None:
    told = await run("batch", "list", "--server", "http://127.0.0.1:9", cwd=desk.folder)

    assert told.code == 2
    assert "no server at http://127.0.0.1:9" in told.err
    assert told.err.count("\n") == 1
