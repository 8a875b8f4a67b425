"""Samples of lm-evaluation-harness: the files `samples_<task>_<time>.jsonl` that `--log_samples` writes for one model each.

Source: `EvaluationTracker.save_results_samples` and `evaluator.evaluate`, https://github.com/EleutherAI/lm-evaluation-harness
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from fanout.core.errors import Fault, RequestError
from fanout.evaluate.importing.samples import ImportedSamples, Sample, get_texts, read_lines, to_number

NAME = re.compile(r"samples_(.+?)(?:_\d{4}-\d\d-\d\dT[\d.:\-]+)?\.jsonl")
KNOWN = frozenset(
    (
        "doc_id",
        "doc",
        "target",
        "arguments",
        "resps",
        "filtered_resps",
        "filter",
        "metrics",
        "doc_hash",
        "prompt_hash",
        "target_hash",
    )
)
"""Fields of a sample that are no metrics."""
NO_FILTER = "none"


def read_lm_eval(path: Path, model: str | None, found: ImportedSamples) -> None:
    """Add the samples of one file.

    Args:
        path: of the file.
        model: whose answers they are; `None`: named by the folder.
        found: to add to.

    Raises:
        RequestError: the file is none of lm-eval's; its line is named.
        OSError: it cannot be read.
    """
    named = NAME.fullmatch(path.name)
    task = named[1] if named else path.stem
    model = model or path.resolve().parent.name
    with path.open("rb") as stream:
        repeats: dict[tuple[str, str], int] = {}
        for place, line in read_lines(stream, path.name):
            if "doc_id" not in line or "target" not in line:
                raise RequestError([Fault(place, "has no `doc_id` and `target`: is it a file of `lm_eval --log_samples`?")])
            found.add(_read_sample(line, task, model, repeats, found))


def _read_sample(
    line: Mapping[str, object], task: str, model: str, repeats: dict[tuple[str, str], int], found: ImportedSamples
) -> Sample:
    filter_ = str(line.get("filter") or NO_FILTER)
    item = (task, str(line["doc_id"]))
    scores: dict[str, float] = {}
    for name, value in line.items():
        if name in KNOWN:
            continue
        number = to_number(value)
        if number is None:
            found.leave_out(f"metric `{name}`, which is no number for each sample")
        else:
            scores[name if filter_ == NO_FILTER else f"{name},{filter_}"] = number
    # Each filter writes the sample again: they are one answer, merged by `merge_samples`.
    key = (filter_, item[1])
    repeat = repeats.get(key, 0)
    repeats[key] = repeat + 1
    texts = get_texts(line.get("filtered_resps")) or get_texts(line.get("resps"))
    text = texts[0] if texts else json.dumps(line.get("filtered_resps"), ensure_ascii=False)
    return Sample(model, item, repeat, _find_prompt(line), line["target"], text, scores)


def _find_prompt(line: Mapping[str, object]) -> object:
    """Return the prompt: the first argument of the first request, which newer versions name and older ones only order."""
    arguments = line.get("arguments")
    if isinstance(arguments, Mapping) and arguments:
        first = next(iter(arguments.values()))
        return next(iter(first.values()), None) if isinstance(first, Mapping) else first
    texts = get_texts(arguments)
    return texts[0] if texts else json.dumps(line.get("doc"), ensure_ascii=False)
