"""`fanout import` as a process: from the files of another program to a paired report, without a call."""

from __future__ import annotations

import json
from pathlib import Path

from tests.evaluate.importing.test_readers import lm_eval_row, write_lines
from tests.support.builders.settings import write_providers_file
from tests.support.cli import run_fanout
from tests.support.upstream.server import Upstream


async def test_samples_of_lm_eval_become_a_job_with_a_paired_report(tmp_path: Path) -> None:
    store = str(tmp_path / "jobs.db")
    for model, right in (("strong", 20), ("weak", 5)):
        rows = [lm_eval_row(number, exact_match=float(number < right)) for number in range(20)]
        write_lines(tmp_path / model / "samples_gsm8k_2026-11-20T09-30-00.123456.jsonl", *rows)
    files = [str(path) for path in sorted(tmp_path.glob("*/samples_*.jsonl"))]
    imported = await run_fanout("import", "lm-eval", *files, "--name", "gsm8k", cwd=tmp_path, FANOUT_STORE=store)
    report = await run_fanout("report", "last", "--json", "--cluster", "task", cwd=tmp_path, FANOUT_STORE=store)
    plain = json.loads((await run_fanout("report", "last", "--json", cwd=tmp_path, FANOUT_STORE=store)).out)
    exported = await run_fanout("batch", "export", "last", cwd=tmp_path, FANOUT_STORE=store)
    missing = await run_fanout("import", "inspect", "nothing.eval", cwd=tmp_path, FANOUT_STORE=store)

    assert imported.code == 0, imported.err
    assert "2 models, 20 items; `fanout report job_" in imported.out
    assert report.code == 0, report.err
    assert (plain["job"]["state"], plain["job"]["ended"], plain["job"]["calls"]) == ("done", 40, 40)
    assert plain["metrics"][0]["verdict"].startswith("exact_match: strong is best, 1 [")
    assert plain["models"][0]["provider"] == "lm-eval"
    line = json.loads(exported.out.splitlines()[0])
    assert (line["prompt"], line["text"], line["scores"]["exact_match"]["value"]) == ("Question: q0\nAnswer:", "18", 1)
    assert (missing.code, "`nothing.eval` cannot be read" in missing.err) == (2, True)


async def test_a_configuration_of_promptfoo_is_run_and_its_rubrics_are_judged(upstream: Upstream, tmp_path: Path) -> None:
    config = write_providers_file(upstream.url, tmp_path, retries={"attempts": 1})
    rubric = {"type": "llm-rubric", "value": "agrees"}
    foo = {
        "prompts": ["Is {{what}} good?"],
        "providers": ["bedrock:unknown"],
        "tests": [
            {"vars": {"what": ["tea", "milk"]}, "assert": [{"type": "equals", "value": "yes"}, rubric]},
            {"vars": {"what": "rain"}, "assert": [{"type": "contains", "value": "no"}, {"type": "python", "value": "1"}]},
        ],
    }
    (tmp_path / "foo.json").write_text(json.dumps(foo))
    options = ("-m", "up/say-yes", "-m", "up/say-no", "--judge", "up/prefers-yes", "--config", str(config))
    store = str(tmp_path / "jobs.db")
    result = await run_fanout("import", "promptfoo", "foo.json", *options, cwd=tmp_path, FANOUT_STORE=store)
    lines = result.out.splitlines()

    assert result.code == 0, result.err
    assert "not taken: provider `bedrock:unknown` (1)" in result.err
    assert "not taken: assertion `python` (1)" in result.err
    assert "assertions: up/say-yes: 2 of 3 pass" in lines
    assert "assertions: up/say-no: 1 of 3 pass" in lines
    assert "llm-rubric: up/say-yes: 2 of 2 pass" in lines
