"""`fanout import` as a process: from the files of another program to a paired report, without a call."""

from __future__ import annotations

import json
from pathlib import Path

from tests.evaluate.importing.test_readers import lm_eval_row, write_lines
from tests.support.cli import run_fanout


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
