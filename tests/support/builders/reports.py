"""Reports of jobs that never ran, with every kind of figure, and result records that fit them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

from fanout.core.json_text import JsonObject
from fanout.evaluate.report.report import build_report
from fanout.rendering.estimates import EstimateJson
from fanout.rendering.judges import JudgeJson
from fanout.rendering.preferences import PreferencesJson
from fanout.rendering.report import ReportJson, render_report
from fanout.rendering.report_html.document import write_document
from fanout.rendering.stopping import StoppedPairJson, StoppingJson
from tests.support.builders.measures import FAILED, Value, build_measures

Scores = Mapping[str, Sequence[Value | Sequence[Value]]]
MODELS = ("good", "other", "poor")


def make_scores(items: int = 40) -> Scores:
    """Return the scores of three models, of two repeats each, with one failure."""
    scores: dict[str, list[Value | Sequence[Value]]] = {
        "good": [[1.0, float(item % 5 > 0)] for item in range(items)],
        "other": [[float(item % 4 > 0), float(item % 5 > 0)] for item in range(items)],
        "poor": [[float(item % 3 > 1), float(item % 5 > 3)] for item in range(items)],
    }
    scores["poor"][3] = [FAILED, 0.0]
    return scores


def make_report(scores: Scores | None = None) -> ReportJson:
    """Return a report in which models cost and last differently."""
    if scores is None:
        return deepcopy(_make_default_report())
    items = max(map(len, scores.values()))
    call_s = {name: [0.2 * 4**place * (1 + item % 7) for item in range(items)] for place, name in enumerate(scores)}
    measures = build_measures(scores, call_s=call_s)
    for factor, model in enumerate(measures.models, 1):
        for place, cost in enumerate(model.cost_usd):
            model.cost_usd[place] = cost * factor
            model.ttft_s[place] = model.call_s[place] / 3
    return render_report(build_report(measures))


@lru_cache(maxsize=1)
def _make_default_report() -> ReportJson:
    return make_report(make_scores())


def make_opinions(models: Sequence[str] = MODELS) -> tuple[list[PreferencesJson], list[JudgeJson]]:
    """Return votes on three models, and a judge without enough labels."""

    def estimate(value: float) -> EstimateJson:
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 40, "method": "bootstrap", "note": None}

    pairs = ((models[0], models[1], 0.55), (models[0], models[2], 0.9), (models[1], models[2], 0.75))
    votes: PreferencesJson = {
        "source": "votes",
        "n": 120,
        "errors": 0,
        "verdict": f"votes: {models[0]} is preferred",
        "ratings": [
            {"model": name, "rating": rating, "low": rating - 40, "high": rating + 40, "comparisons": 80}
            for name, rating in zip(models, (1100.0, 1050.0, 850.0), strict=True)
        ],
        "pairs": [
            {
                "a": a,
                "b": b,
                "win_rate": estimate(rate),
                "wins": 20,
                "losses": 10,
                "ties": 10,
                "both_bad": 1,
                "errors": 0,
                "length_difference": None,
                "length_correlation": None,
            }
            for a, b, rate in pairs
        ],
        "notes": ["by one person: it is their taste"],
    }
    judge: JudgeJson = {
        "name": "helpful",
        "model": models[0],
        "task": "pair",
        "questions": 90,
        "unread": 2,
        "labels": 12,
        "kappa": 0.61,
        "both_orders": 20,
        "consistency": 0.85,
        "bias": 0.1,
        "retested": 9,
        "retest": None,
        "cost_usd": 0.4,
        "note": "judge not validated",
        "corrected": [
            {
                "a": models[0],
                "b": models[1],
                "items": 40,
                "judged": 0.7,
                "corrected": {**estimate(0.6), "method": "mean, PPI++"},
                "labels": 20,
                "judge_weight": 0.8,
                "effective_labels": 31.5,
            }
        ],
    }
    return [votes], [judge]


def make_stopping(models: Sequence[str] = MODELS) -> StoppingJson:
    """Return the course of a job that has stopped after three items."""
    pairs: list[StoppedPairJson] = [
        {
            "a": a,
            "b": b,
            "state": "difference",
            "items": 3,
            "difference": 0.5,
            "evidence": 21.0,
            "low": 0.1,
            "high": 0.9,
            "path": [
                {"items": items, "difference": 0.5, "low": 0.1 - 1 / items, "high": 0.9, "evidence": 7.0 * items}
                for items in (1, 2, 3)
            ],
            "fixed_items": 15,
        }
        for a, b in combinations(models, 2)
    ]
    return {
        "metric": "exact",
        "margin": 0.1,
        "alpha": 0.05,
        "seed": 7,
        "sentence": f"decided by exact after 3 of 40 items: {models[0]} is better than every other model",
        "items": 3,
        "calls": 9,
        "cost_usd": 0.02,
        "fixed_calls": 45,
        "fixed_cost_usd": 0.1,
        "pairs": pairs,
    }


Answer = Callable[[int, int, int], str]
"""Returns the text of an answer, by item, entry and repeat."""


def make_records(scores: Scores, answer: Answer, **more: Any) -> Iterator[JsonObject]:
    """Yield the result records of a job with these scores."""
    for item in range(max(map(len, scores.values()))):
        for entry, (label, values) in enumerate(scores.items()):
            of_item = values[item]
            for repeat, value in enumerate(of_item if isinstance(of_item, list | tuple) else [of_item]):
                failed = value == FAILED
                yield {
                    "item": item,
                    "line": item + 1,
                    "custom_id": None,
                    "entry": entry,
                    "repeat": repeat,
                    "label": label,
                    "prompt": f"question {item}",
                    "reference": f"reference {item}",
                    "tool_calls": None,
                    "refusal": None,
                    "text": None if failed else answer(item, entry, repeat),
                    "finish_reason": None if failed else "stop",
                    "error_kind": "timeout" if failed else None,
                    "error_message": "no answer in time" if failed else None,
                    "completion_tokens": 9,
                    "total_ms": 1200,
                    "cost_usd": 0.0004,
                    "scores": {} if failed else {"exact": {"value": value, "version": "exact/1", "explanation": None}},
                    **more,
                }


def write_file(path: Path, report: ReportJson, records: Iterable[JsonObject], *, by_label: bool = False) -> Path:
    """Write a report to a file and return its path."""
    with path.open("wb") as file:
        write_document(file.write, report, records, by_label=by_label)
    return path
