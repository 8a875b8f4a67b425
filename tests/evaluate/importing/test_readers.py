"""Files of other evaluation programs, read as they write them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fanout.core.errors import RequestError
from fanout.evaluate.importing.imported_job import merge_samples
from fanout.evaluate.importing.inspect_logs import read_inspect
from fanout.evaluate.importing.lm_eval import read_lm_eval
from fanout.evaluate.importing.samples import ImportedSamples


def write_lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lm_eval_row(doc_id: int, filter_: str = "none", **fields: Any) -> dict[str, Any]:
    return {
        "doc_id": doc_id,
        "doc": {"question": f"q{doc_id}"},
        "target": "18",
        "arguments": {"gen_args_0": {"arg_0": f"Question: q{doc_id}\nAnswer:", "arg_1": {"until": ["Q:"]}}},
        "resps": [["It is 18."]],
        "filtered_resps": ["18"],
        "filter": filter_,
        "metrics": ["exact_match"],
        "doc_hash": "a",
        "prompt_hash": "b",
        "target_hash": "c",
        "exact_match": 1.0,
        **fields,
    }


def test_samples_of_lm_eval_are_named_by_their_folder_and_filters_are_scores_of_one_answer(tmp_path: Path) -> None:
    path = tmp_path / "model-a" / "samples_gsm8k_2026-11-20T09-30-00.123456.jsonl"
    rows = [lm_eval_row(number, filter_) for number in range(2) for filter_ in ("strict-match", "flexible-extract")]
    rows[0]["exact_match"] = 0.0
    found = ImportedSamples("lm-eval")
    read_lm_eval(write_lines(path, *rows), None, found)
    first, second = merge_samples(found.samples).values()

    assert (first.model, first.item, first.text, first.reference) == ("model-a", ("gsm8k", "0"), "18", "18")
    assert first.prompt == "Question: q0\nAnswer:"
    assert first.scores == {"exact_match,strict-match": 0, "exact_match,flexible-extract": 1}
    assert second.scores == {"exact_match,strict-match": 1, "exact_match,flexible-extract": 1}


def test_metrics_that_are_no_number_of_a_sample_are_named_and_older_arguments_are_read(tmp_path: Path) -> None:
    row = lm_eval_row(0, arguments=[["The prompt", " yes"], ["The prompt", " no"]], word_perplexity=[-1.5, 3])
    row |= {"resps": [[[-1.0, True]], [[-2.0, False]]], "filtered_resps": [[-1.0, True], [-2.0, False]], "acc": True}
    found = ImportedSamples("lm-eval")
    read_lm_eval(write_lines(tmp_path / "m" / "samples_boolq.jsonl", row), "chosen", found)
    (sample,) = found.samples

    assert (sample.model, sample.prompt, sample.scores) == ("chosen", "The prompt", {"exact_match": 1, "acc": 1})
    assert sample.text == "[[-1.0, true], [-2.0, false]]"
    assert found.left_out == {"metric `word_perplexity`, which is no number for each sample": 1}


def inspect_sample(number: int, epoch: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": number,
        "epoch": epoch,
        "input": [{"role": "user", "content": [{"type": "text", "text": f"q{number}"}]}],
        "target": "yes",
        "output": {"model": "m", "completion": "yes", "time": 0.5, "usage": {"input_tokens": 3, "output_tokens": 1}},
        "scores": {"match": {"value": "C"}, "rubric": {"value": {"tone": 0.5, "truth": "I"}}, "note": {"value": "good"}},
        **fields,
    }


@pytest.mark.parametrize("form", ["eval", "json"])
def test_logs_of_inspect_are_read_in_both_forms(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"log.{form}"
    header = {"version": 2, "status": "success", "eval": {"task": "quiz", "model": "lab/m"}}
    samples = [inspect_sample(0, 1), inspect_sample(0, 2, error={"message": "timed out"}, scores=None)]
    if form == "eval":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("header.json", json.dumps(header))
            for sample in samples:
                archive.writestr(f"samples/0_epoch_{sample['epoch']}.json", json.dumps(sample))
    else:
        path.write_text(json.dumps({**header, "samples": samples}))
    found = ImportedSamples("inspect")
    read_inspect(path, None, found)
    first, second = found.samples

    assert (first.model, first.item, first.repeat, first.prompt) == ("lab/m", ("quiz", "0"), 0, "user: q0")
    assert first.scores == {"match": 1, "rubric/tone": 0.5, "rubric/truth": 0}
    assert (first.output_tokens, first.seconds, first.text) == (1, 0.5, "yes")
    assert (second.repeat, second.text, second.error) == (1, None, "timed out")
    assert found.left_out == {"score `note`, whose value is no number": 1}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("samples_a.jsonl", '{"doc_id": 1}\n', "line 1: has no `doc_id` and `target`"),
        ("samples_a.jsonl", "{}\n[1]\n", "line 1: has no"),
        ("samples_a.jsonl", "nonsense\n", "line 1: is not JSON"),
    ],
)
def test_a_file_of_something_else_is_refused_with_its_line(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(RequestError) as refused:
        read_lm_eval(tmp_path / name, None, ImportedSamples("lm-eval"))

    assert words in str(refused.value)


def test_a_log_that_has_not_ended_or_is_no_log_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.eval", "w") as archive:
        archive.writestr("_journal/start.json", "{}")
    (tmp_path / "b.json").write_text('{"results": {}}')
    for name, words in (("a.eval", "has no `header.json`"), ("b.json", "has no `eval` with a `model`")):
        with pytest.raises(RequestError) as refused:
            read_inspect(tmp_path / name, None, ImportedSamples("inspect"))
        assert words in str(refused.value)
