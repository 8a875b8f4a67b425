"""Measures of a job that never ran: `build_measures({"a": [1, 0], "b": [1, 1]})`."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

from fanout.evaluate.report.measures import JobMeasures, ModelMeasures
from fanout.jobs.job import Job, JobSpec
from fanout.store.jobs.records import ScorerRow

FAILED = "failed"
"""A unit that failed."""
ABSENT = "absent"
"""A unit that has not ended."""
EXACT = ScorerRow(1, "exact", "exact/1/44136fa355b3", '{"type":"exact"}', is_bounded=True, is_higher_better=True)
COST = ScorerRow(1, "cost", "cost/1/44136fa355b3", '{"type":"cost"}', is_bounded=False, is_higher_better=False)
Value = float | str | None
"""A score, `None` for an answer without one, `FAILED` or `ABSENT`."""


def build_measures(
    scores: Mapping[str, Sequence[Value | Sequence[Value]]],
    *,
    scorer: ScorerRow = EXACT,
    clusters: Mapping[int, str] | None = None,
    call_s: Mapping[str, Sequence[float]] | None = None,
    **spec: Any,
) -> JobMeasures:
    """Return measures of models whose items have these scores, or lists of scores where there are repeats."""
    count = max(len(values) for values in scores.values())
    repeats = max(len(value) for values in scores.values() for value in map(_to_repeats, values))
    models = [_build_model(name, values, scorer, (call_s or {}).get(name)) for name, values in scores.items()]
    job = Job(
        number=1,
        id="job_made",
        created=1_795_000_000.0,
        account_id="",
        spec=JobSpec(models=tuple({"model": name} for name in scores), repeats=repeats, **spec),
        fingerprint={},
        state="done",
        reason=None,
        items=count,
        units=count * repeats * len(scores),
        started=1_795_000_000.0,
        ended=1_795_000_060.0,
        rate=None,
        forked_from=None,
    )
    return JobMeasures(job, models, [scorer], clusters, "topic" if clusters else None)


def _build_model(
    name: str, values: Sequence[Value | Sequence[Value]], scorer: ScorerRow, call_s: Sequence[float] | None
) -> ModelMeasures:
    model = ModelMeasures(name, "lab", name, {"max_tokens": 8})
    model.scores[scorer.scorer] = array("d")
    for item, of_item in enumerate(values):
        for repeat, value in enumerate(_to_repeats(of_item)):
            if value == ABSENT:
                continue
            answered = value != FAILED
            model.items.append(item)
            model.repeats.append(repeat)
            model.answered.append(answered)
            model.scores[scorer.scorer].append(float(value) if isinstance(value, int | float) else nan)
            model.cost_usd.append(0.001 * (1 + item % 3) if answered else nan)
            model.queued_s.append(0.0)
            model.ttft_s.append(nan)
            model.call_s.append((call_s[item] if call_s else 1.0) if answered else nan)
            model.total_s.append(2.0 if answered else nan)
            model.output_tokens.append(10 if answered else nan)
            if not answered:
                model.failures["timeout"] += 1
    return model


def _to_repeats(value: Value | Sequence[Value]) -> Sequence[Value]:
    return value if isinstance(value, list | tuple) else [value]  # type: ignore[list-item]
