"""Models and metrics that a decision names, found among those of a job."""

from __future__ import annotations

from collections.abc import Iterable

from fanout.core.errors import Fault, RequestError
from fanout.core.suggestions import did_you_mean
from fanout.evaluate.report.measures import JobMeasures, ModelMeasures
from fanout.store.jobs.records import ScorerRow


def find_metric(measures: JobMeasures, name: str | None) -> ScorerRow:
    """Return the scorer of that name; without a name the only one.

    Raises:
        RequestError: there is none, or no name and several.
    """
    known = {scorer.label: scorer for scorer in measures.scorers}
    if not known:
        raise RequestError([Fault("metric", "the job has no scores: apply scorers with `fanout evaluate score`")])
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name not in known:
        problem = "is required, because the job has several" if name is None else f"`{name[:80]}` is not a metric of the job"
        raise RequestError([Fault("metric", f"{problem}{did_you_mean(name or '', known)}; known: {', '.join(known)}")])
    return known[name]


def check_models(measures: JobMeasures, named: Iterable[tuple[str, str]]) -> None:
    """Refuse names that no model of the job has; each comes with the field that holds it."""
    known = [model.name for model in measures.models]
    faults = [
        Fault(field, f"`{name[:80]}` is not a model of the job{did_you_mean(name, known)}; known: {', '.join(known)}")
        for field, name in named
        if name not in known
    ]
    if faults:
        raise RequestError(faults)


def get_model(measures: JobMeasures, name: str) -> ModelMeasures:
    """Return the measures of a model that the job has."""
    return next(model for model in measures.models if model.name == name)
